"""CNTK: what the plain torch version and the compiled one cost, and what the Triton kernel does on a GPU.

    python benchmarks/kernels_cntk.py [--threads 2] [--rounds 5] [--small] [--device cuda] [--json]

On CPU, milliseconds a pair of images, by the clock and of processor time, medians over rounds in which both take their
turn in a new order. First it is checked that they give the same kernel: to 1e-10 in double precision, relative to the
largest entry, and to 1e-4 in single precision. On CUDA, pairs a second of the Triton kernel, 11 layers on 32 x 32
images of 3 channels, and what it is off by from double precision in plain torch. The first call, which compiles, is not
timed; what it took is said.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from phenoscope import kernels

# side, channels, depth, images on the left and on the right
CASES = ((8, 1, 3, 16, 64), (16, 3, 3, 4, 64), (32, 3, 11, 4, 16))
SMALL = ((8, 1, 3, 4, 16),)
PLAIN_PAIRS = 64  # the plain version takes this many pairs at most
WITHIN = {torch.float64: 1e-10, torch.float32: 1e-4}
KINDS = {"clock": time.perf_counter, "processor": time.process_time}


def images(n: int, channels: int, side: int, seed: int) -> torch.Tensor:
    """Smooth random images, as photographs are, on which neighbouring patches are alike."""
    noise = torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return (noise + noise.roll(1, 2) + noise.roll(1, 3) + noise.roll((1, 1), (2, 3))) / 2


def off(found: torch.Tensor, plain: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    return float((found.double().cpu() - plain.cpu()).abs().max() / plain.abs().max())


def on_cpu(case: tuple[int, ...], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Both contenders' milliseconds a pair, and how many times as fast the compiled one is."""
    side, channels, depth, n1, n2 = case
    x, y = images(n1, channels, side, 0), images(n2, channels, side, 1)
    few = (x[:1], y[: max(1, min(n2, PLAIN_PAIRS * 64 // side**2))])
    plain = kernels.cntk(*few, depth=depth, method="torch")
    difference = off(kernels.cntk(*few, depth=depth, method="compiled", dtype=dtype), plain)
    if not difference < WITHIN[dtype]:
        raise SystemExit(f"{side} x {side}, {dtype}: the compiled kernel is off by {difference:.2g}")
    contenders = {"torch": few, "compiled": (x, y)}
    times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in contenders} for kind in KINDS}
    for _ in range(rounds):
        for name in random.sample(list(contenders), len(contenders)):
            starts = [read() for read in KINDS.values()]
            found = kernels.cntk(*contenders[name], depth=depth, method=name, dtype=dtype)
            for (kind, read), start in zip(KINDS.items(), starts, strict=True):
                times[kind][name].append(1e3 * (read() - start) / found.numel())
    row: dict[str, Any] = {
        "side": side, "channels": channels, "depth": depth, "dtype": str(dtype)[6:], "difference": difference,
    }  # fmt: skip
    for kind, of in times.items():
        medians = {name: statistics.median(values) for name, values in of.items()}
        ratio = statistics.median(a / b for a, b in zip(of["torch"], of["compiled"], strict=True))
        row[kind] = medians | {"ratio": ratio}
    return row


def on_cuda(small: bool, rounds: int) -> dict[str, Any]:
    """Pairs a second of the Triton kernel on a symmetric matrix, and its distance to double precision."""
    side, depth, n = (8, 3, 64) if small else (32, 11, 320)
    x = images(n, 3, side, 0).cuda()
    settings: dict[str, Any] = {"depth": depth, "dtype": torch.float32, "method": "triton"}
    start = time.perf_counter()
    found = kernels.cntk(x[:8], **settings)
    first = time.perf_counter() - start
    difference = off(found, kernels.cntk(x[:8], depth=depth, method="torch"))
    if not difference < WITHIN[torch.float32]:
        raise SystemExit(f"the Triton kernel is off by {difference:.2g}")
    pairs, rates = n * (n + 1) // 2, []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        kernels.cntk(x, **settings)
        torch.cuda.synchronize()
        rates.append(pairs / (time.perf_counter() - start))
    return {
        "side": side, "channels": 3, "depth": depth, "dtype": "float32", "difference": difference, "pairs": pairs,
        "pairs a second": statistics.median(rates), "first call, seconds": first,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small images only, to see that it runs")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    if options.device == "cuda":
        rows = [on_cuda(options.small, options.rounds)]
    else:
        cases = SMALL if options.small else CASES
        rows = [on_cpu(case, dtype, options.rounds) for case in cases for dtype in WITHIN]
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "load average from to": [load, os.getloadavg()[0]],
        "rows": rows,
    }
    print(json.dumps(result, indent=2) if options.json else said(result))
    return result


def said(result: dict[str, Any]) -> str:
    """As a table."""
    lines = [f"{name}: {value}" for name, value in result.items() if name != "rows"]
    if result["device"] != "cpu":
        return "\n".join(lines + [f"{name}: {value}" for row in result["rows"] for name, value in row.items()])
    heads = "".join(f"{name:>10}" for name in ("torch", "compiled", "ratio"))
    lines += ["", f"{'milliseconds a pair of images':40}{'off by':>10}" + "".join(f"   {k:9}" + heads for k in KINDS)]
    for row in result["rows"]:
        name = f"{row['side']} x {row['side']} x {row['channels']}, depth {row['depth']}, {row['dtype']}"
        cells = ["".join(f"{row[kind][of]:10.3f}" for of in ("torch", "compiled", "ratio")) for kind in KINDS]
        lines.append(f"{name:40}{row['difference']:10.1e}" + "".join(f"{'':12}{cell}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
