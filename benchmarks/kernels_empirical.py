"""The empirical tangent kernel beside the Jacobian contraction that torch.func's tutorial teaches.

    python benchmarks/kernels_empirical.py [--rounds 3] [--threads 2] [--device cuda] [--small] [--json]

A convolutional network of 2.5 million parameters, ten outputs, images of 32 x 32 in color, float32; N = 32 on a CPU and
128 on a GPU, the trace over outputs and the full kernel. Both are first compared with each other, in float64. Every
measurement is a process of its own, in a new order every round: seconds of the second call, so that nothing is compiled
or allocated for the first time, seconds of processor time, and peak memory beyond what the network and the inputs took
(of the process on a CPU, of torch's allocator on a GPU). Where the peer does not fit, the largest power of two at which
it does is measured instead, and said.

On a GPU also: N = 10,000 (trace) to disk in bounded memory, its time and the share of the card's float32 matrix rate,
which a product of two 8192 x 8192 matrices measures beforehand; and a ResNet-50 of 25 million parameters and 1,000
classes on images of 224 x 224, N = 64, trace, in evaluation mode.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from memory import peak_of
from phenoscope import kernels, models

TOLERANCE = 1e-10  # relative to the largest entry, in float64; in float32 rounding turns single rectifiers on and off
BARS = {"speed": 5.0, "memory": 10.0}


def network(device: str, *, small: bool = False) -> nn.Module:
    """Six convolutions and two dense layers: 2.5 million parameters."""
    width = (8, 8, 16) if small else (64, 64, 128, 128, 256, 256)
    pool = (2,) * 3 if small else (1, 2, 1, 2, 1, 2)
    net = models.cnn((3, 32, 32), 10, width=width, pool=pool, hidden=() if small else (320,), generator=0)
    return net.to(device)


def images(n: int, device: str, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)


def peer(model: nn.Module, x: Tensor, *, full: bool) -> Tensor:
    """Whole Jacobians of both sides by vmap and jacrev, then one product of them for every parameter."""
    values = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, parameters, (one[None],))[0]

    def jacobian(inputs: Tensor) -> list[Tensor]:
        return [j.flatten(2) for j in vmap(jacrev(outputs), (None, 0))(values, inputs).values()]

    left, right = jacobian(x), jacobian(x)
    pattern = "iap,jbp->ijab" if full else "iap,jap->ij"
    products = [torch.einsum(pattern, a, b) for a, b in zip(left, right, strict=True)]
    whole = torch.stack(products).sum(0)
    return whole if full else whole / left[0].shape[1]


def ours(model: nn.Module, x: Tensor, *, full: bool) -> Tensor:
    return kernels.empirical_ntk(model, x, outputs="full" if full else "trace")


CONTENDERS: dict[str, Callable[..., Tensor]] = {"peer": peer, "ours": ours}


def alone(name: str, n: int, full: bool, device: str, threads: int, small: bool) -> dict[str, float]:
    """One contender in this process: a first call for its memory and what it compiles, a second for its time."""
    torch.set_num_threads(threads)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    model, x = network(device, small=small).eval(), images(n, device)
    model(x[:2])
    used = peak_of(lambda: CONTENDERS[name](model, x, full=full), device)
    start, spent = time.perf_counter(), time.process_time()
    CONTENDERS[name](model, x, full=full)
    synchronize()
    return {"seconds": time.perf_counter() - start, "processor": time.process_time() - spent, "bytes": float(used)}


def in_a_process(name: str, n: int, full: bool, options: argparse.Namespace) -> dict[str, float] | None:
    """`alone` in a process of its own; `None` if it did not live through it."""
    settings = [name, n, full, options.device, options.threads, options.small]
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "out of memory" in done.stderr.lower() or done.returncode < 0 or "can't allocate" in done.stderr:
            return None
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def difference(options: argparse.Namespace) -> dict[str, float]:
    """How far both are apart, on a few images, relative to the largest entry."""
    model, x = network(options.device, small=options.small).eval().double(), images(4, options.device).double()
    found = {}
    for full in (False, True):
        a, b = peer(model, x, full=full), ours(model, x, full=full)
        found["full" if full else "trace"] = float((a - b).abs().max() / a.abs().max())
    worst = max(found.values())
    if not worst < TOLERANCE:
        raise SystemExit(f"the two kernels differ by {worst:.2g} of the largest entry")
    return found


def compared(full: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Both contenders at one N, in a new order every round."""
    n = options.n or (128 if options.device == "cuda" else 8 if options.small else 32)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    asked = n
    while in_a_process("peer", n, full, options) is None:
        n //= 2
        if not n:
            raise SystemExit("the peer does not fit at any N")
    for _ in range(options.rounds):
        for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
            one = in_a_process(name, n, full, options)
            if one is None:
                raise SystemExit(f"{name} ran out of memory at N = {n}")
            found[name].append(one)
    row: dict[str, Any] = {"kernel": "full" if full else "trace", "n": n, "n_asked": asked}
    for kind in ("seconds", "processor", "bytes"):
        medians = {name: statistics.median(each[kind] for each in some) for name, some in found.items()}
        row[kind] = medians | {"ratio": medians["peer"] / max(medians["ours"], 1e-9)}
    clock = row["seconds"]["ratio"] >= BARS["speed"]
    row["met"] = {"speed": clock, "memory": row["bytes"]["ratio"] >= BARS["memory"]}
    return row


def matrix_rate(device: str, size: int = 8192) -> float:
    """Floating point operations a second of a float32 product."""
    a = torch.randn(size, size, device=device)
    a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    return 5 * 2 * size**3 / (time.perf_counter() - start)


def large(n: int, device: str) -> dict[str, Any]:
    """The trace of many images, to disk; operations are counted by torch while one block pair is made."""
    from torch.utils.flop_counter import FlopCounterMode

    model, x = network(device).eval(), images(n, device)
    rate = matrix_rate(device)
    with FlopCounterMode(display=False) as counted:
        kernels.empirical_ntk(model, x[:512], outputs="trace")
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        torch.cuda.synchronize()
        start = time.perf_counter()
        with FlopCounterMode(display=False) as whole:
            kernels.empirical_ntk(model, x, outputs="trace", out=Path(folder) / "kernel")
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    operations = float(whole.get_total_flops())
    return {
        "n": n, "seconds": seconds, "operations": operations, "rate": operations / seconds, "matrix_rate": rate,
        "share": operations / seconds / rate, "bytes": torch.cuda.max_memory_allocated(),
        "operations_at_512": float(counted.get_total_flops()),
    }  # fmt: skip


def resnet(device: str, n: int = 64, size: int = 224) -> dict[str, Any]:
    """Trace over a thousand classes."""
    model = models.resnet((3, size, size), 1000, depth=50, generator=0).to(device).eval()
    x = images(n, device, size)
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    kernel = kernels.empirical_ntk(model, x, outputs="trace")
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "n": n, "parameters": sum(p.numel() for p in model.parameters()), "seconds": seconds, "met": seconds <= 300,
        "bytes": torch.cuda.max_memory_allocated(), "finite": bool(kernel.isfinite().all()),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--n", type=int, default=None, help="images; 32, or 128 on a GPU")
    parser.add_argument("--small", action="store_true", help="a small network and few images: only whether it runs")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        print(json.dumps(alone(*json.loads(options.alone))))
        return {}
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "parameters": sum(p.numel() for p in network("cpu", small=options.small).parameters()),
        "load": os.getloadavg()[0],
        "difference": difference(options),
        "rows": [compared(full, options) for full in (False, True)],
    }
    if options.device == "cuda":
        result["large"] = large(512 if options.small else 10_000, "cuda")
        result["resnet50"] = resnet("cuda", 2 if options.small else 64, 64 if options.small else 224)
    print(json.dumps(result, indent=2) if options.json else said(result))
    return result


def said(result: dict[str, Any]) -> str:
    """As a table."""
    lines = [f"{name}: {value}" for name, value in result.items() if name != "rows"]
    lines += ["", f"{'':10}{'N':>6}" + "".join(f"{kind:>28}" for kind in ("seconds", "processor seconds", "megabytes"))]
    lines += [f"{'':16}" + f"{'peer':>10}{'ours':>9}{'ratio':>9}" * 3]
    for row in result["rows"]:
        cells = ""
        for kind, unit in (("seconds", 1.0), ("processor", 1.0), ("bytes", 2.0**20)):
            peers, own, ratio = (row[kind][name] for name in ("peer", "ours", "ratio"))
            cells += f"{peers / unit:10.2f}{own / unit:9.2f}{ratio:9.1f}"
        lines.append(f"{row['kernel']:10}{row['n']:6}{cells}   met: {row['met']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
