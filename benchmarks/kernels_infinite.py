"""The kernels of infinitely wide networks: `kernels.infinite` beside the neural-tangents package.

    python benchmarks/kernels_infinite.py [--rounds 5] [--threads 2] [--small] [--device cuda] [--json]

Two cases, both kernels (NNGP and tangent) of one set of examples with itself: an MLP of five hidden ReLU layers on
2,000 digits, and a CNN of three 3 x 3 convolutions, ReLU and global average pooling on 64 images of 16 x 16 x 3; each
in float32 and in float64 on both sides. The package is jitted as a whole, and for the CNN it is also run by `nt.batch`,
whose blocks need less memory. Each contender is a process of its own that has compiled, and run once, before the clock
starts; in each round all take their turn, in a new order. Seconds by the clock and of processor time, medians over the
rounds; ratios, how many times as long the package takes, are medians over the rounds too. On a machine that others use
too, trust processor time. Memory is the largest that the process held in a further run, in a new process that has
compiled and not yet run, less what it held before. First it is checked that all give the same kernels.

The package needs an environment of its own, which `python tools/neural_tangents.py` makes; without it this library is
timed alone. On CUDA, too: the package's environment has no CUDA.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memory import peak_of

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".venv-nt" / "bin" / "python"
OURS, THEIRS, BATCHED = "phenoscope", "neural-tangents", "neural-tangents, nt.batch"
W2, B2 = 2.0, 0.01
DEPTH = {"mlp": 5, "cnn": 3}
ROUNDS = {"mlp": 5, "cnn": 1}  # a round of the package's CNN takes minutes
BATCH = 16  # divides the number of images
# Relative to the kernel's norm. At equal inputs the package loses half of the digits in arccos; float32 has seven.
TOLERANCE = {"float64": 1e-6, "float32": 1e-3}
KINDS = {"clock": time.perf_counter, "processor": time.process_time}

Kernels = tuple[Any, Any]


def ours(case: str, x: np.ndarray, dtype: str, device: str, threads: int) -> Callable[[], Kernels]:
    import torch
    from torch import nn

    from phenoscope import kernels

    torch.set_num_threads(threads)
    layers: list[nn.Module] = []
    size = x[0].size if case == "mlp" else x.shape[-1]
    for number in range(DEPTH[case]):
        inputs = 64 if number else size
        layers += [nn.Linear(inputs, 64) if case == "mlp" else nn.Conv2d(inputs, 64, 3, padding=1), nn.ReLU()]
    layers += [nn.Linear(64, 1)] if case == "mlp" else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1)]
    kernel = kernels.infinite(nn.Sequential(*layers), sigma_w2=W2, sigma_b2=B2, dtype=getattr(torch, dtype))
    given = torch.as_tensor(x if case == "mlp" else x.transpose(0, 3, 1, 2).copy(), dtype=getattr(torch, dtype))
    given = given.to(device)

    def run(some: Any = given) -> Kernels:
        found = kernel(some)
        if device == "cuda":
            torch.cuda.synchronize()
        return found.nngp, found.ntk

    run(given[:2])
    return run


def theirs(case: str, x: np.ndarray, dtype: str, batched: bool) -> Callable[[], Kernels]:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    import neural_tangents as nt
    from neural_tangents import stax

    def weights(make: Any, *shape: Any, **settings: Any) -> Any:
        return make(*shape, W_std=W2**0.5, b_std=B2**0.5, **settings)

    layers = []
    for _ in range(DEPTH[case]):
        layer = weights(stax.Dense, 64) if case == "mlp" else weights(stax.Conv, 64, (3, 3), padding="SAME")
        layers += [layer, stax.Relu()]
    layers += [weights(stax.Dense, 1)] if case == "mlp" else [stax.GlobalAvgPool(), weights(stax.Dense, 1)]
    kernel = stax.serial(*layers)[2]
    given = jax.numpy.asarray(x, dtype=dtype)
    if batched:
        kernel = nt.batch(kernel, batch_size=BATCH)
        kernel(given[:BATCH], None, ("nngp", "ntk"))  # compiles

        def call(some: Any) -> Any:
            return kernel(some, None, ("nngp", "ntk"))
    else:
        call = jax.jit(lambda some: kernel(some, None, ("nngp", "ntk"))).lower(given).compile()

    def run() -> Kernels:
        found = jax.block_until_ready(call(given))
        return found.nngp, found.ntk

    return run


def serve(who: str, case: str, dtype: str, device: str, threads: int, file: str) -> None:
    """One contender, in its own process: it does what each line on standard input says, and answers with a line."""
    x = np.load(file)
    run = ours(case, x, dtype, device, threads) if who == OURS else theirs(case, x, dtype, who == BATCHED)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        wish, *rest = json.loads(line)
        answer: Any = None
        if wish == "time":
            starts = {kind: read() for kind, read in KINDS.items()}
            run()
            answer = {kind: read() - starts[kind] for kind, read in KINDS.items()}
        elif wish == "memory":
            answer = peak_of(run, device) / 2**20
        else:
            np.savez(rest[0], **{name: as_numpy(k) for name, k in zip(("nngp", "ntk"), run(), strict=True)})
        print(json.dumps(answer), flush=True)


def as_numpy(kernel: Any) -> np.ndarray:
    return np.asarray(kernel.cpu() if hasattr(kernel, "cpu") else kernel, dtype=np.float64)


@contextlib.contextmanager
def contender(who: str, case: str, dtype: str, options: argparse.Namespace, file: str) -> Iterator[Callable[..., Any]]:
    """The process of a contender, as a function that sends it a wish."""
    python = sys.executable if who == OURS else str(PEER)
    asked = json.dumps([who, case, dtype, options.device, options.threads, file])
    command = [python, "-W", "ignore", __file__, "--serve", asked]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | quiet,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads]),
        ) as process,
    ):  # fmt: skip
        assert process.stdin and process.stdout

        def answer() -> Any:
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise SystemExit(f"{who}, {case}, {dtype} ended with {process.wait()}:\n{errors.read()[-2000:]}")
            return json.loads(line)

        def ask(*wish: str) -> Any:
            process.stdin.write(json.dumps(wish) + "\n")
            process.stdin.flush()
            return answer()

        answer()
        yield ask  # on the way out the pipe is closed, which ends the process


def measured(case: str, dtype: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders of a case: their times, memory, and how much faster and smaller ours is than the best of them."""
    file = str(folder / f"{case}.npy")
    np.save(file, inputs(case, options.small))
    names = [OURS]
    if PEER.exists() and options.device == "cpu":
        names += [THEIRS] if case == "mlp" else [THEIRS, BATCHED]
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in names} for kind in KINDS}
    memory = {}
    for name in names:
        with contender(name, case, dtype, options, file) as ask:
            memory[name] = ask("memory")
    with contextlib.ExitStack() as stack:
        asks = {name: stack.enter_context(contender(name, case, dtype, options, file)) for name in names}
        kernels = {}
        for name, ask in asks.items():
            ask("save", str(folder / "found.npz"))
            kernels[name] = dict(np.load(folder / "found.npz"))
        off = max((difference(kernels[OURS], kernels[name]) for name in names[1:]), default=0.0)
        if not off < TOLERANCE[dtype]:
            raise SystemExit(f"{case}, {dtype}: the kernels differ by {off:.2g} of their norm")
        kernels.clear()
        for _ in range(options.rounds or ROUNDS[case]):
            for name in random.sample(names, len(names)):
                for kind, seconds in asks[name]("time").items():
                    found[kind][name].append(seconds)
    row: dict[str, Any] = {"case": case, "dtype": dtype, "difference": off, "MiB": memory}
    for kind, times in found.items():
        row[kind] = {"seconds": {name: statistics.median(values) for name, values in times.items()}}
        row[kind]["ratio"] = {
            name: statistics.median(a / b for a, b in zip(times[name], times[OURS], strict=True)) for name in names[1:]
        }
    return row


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])) for name in b)


def inputs(case: str, small: bool) -> np.ndarray:
    """Digits, some of them twice and all with a little noise, for there are only 1,797; and images that are noise."""
    draw = np.random.default_rng(0)
    if case == "cnn":
        return draw.standard_normal((BATCH if small else 64, 8 if small else 16, 8 if small else 16, 3))
    from sklearn.datasets import load_digits

    pixels = load_digits().data / 16
    rows = draw.permutation(np.arange(2000) % len(pixels))[: 200 if small else 2000]
    return pixels[rows] + 0.1 * draw.standard_normal((len(rows), pixels.shape[1]))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="5 of the MLP, 1 of the CNN unless said")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=list(DEPTH), choices=list(DEPTH))
    parser.add_argument("--dtypes", nargs="+", default=list(TOLERANCE), choices=list(TOLERANCE))
    parser.add_argument("--small", action="store_true", help="200 digits, and 16 images of 8 x 8 x 3")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of this library alone")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    options = parser.parse_args(arguments)
    if not PEER.exists():
        print(
            "without the neural-tangents package, which tools/neural_tangents.py installs: this library alone",
            file=sys.stderr,
        )
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(case, dtype, options, Path(folder)) for case in options.cases for dtype in options.dtypes]
    load.append(os.getloadavg()[0])
    result = {
        "device": options.device, "threads": options.threads, "rounds": options.rounds or ROUNDS,
        "small": options.small, "load average from to": load, "rows": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=2) if options.json else said(result))
    return result


def said(result: dict[str, Any]) -> str:
    """As a table."""
    lines = [f"{name}: {value}" for name, value in result.items() if name != "rows"]
    lines += ["", f"{'':8}{'':9}{'':30}{'clock, s':>10}{'ratio':>7}{'processor, s':>14}{'ratio':>7}{'MiB':>9}"]
    for row in result["rows"]:
        for name in row["MiB"]:
            cells = []
            for kind, width in (("clock", 10), ("processor", 14)):
                ratio = row[kind]["ratio"].get(name)
                cells.append(f"{row[kind]['seconds'][name]:{width}.3f}{'' if ratio is None else f'{ratio:.2f}':>7}")
            lines.append(f"{row['case']:8}{row['dtype']:9}{name:30}{''.join(cells)}{row['MiB'][name]:9.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*json.loads(sys.argv[2]))
    else:
        main()
