"""Kernel regression on many points: `kernels.kernel_regression`, and what one writes in PyTorch in its place.

    python benchmarks/kernels_regression.py [--points 10000 | --small] [--threads 2] [--rounds 1] [--json]

The matrix is the NNGP kernel of a ReLU network of depth 1 among random points, the targets are ten random columns, the
ridge is 1e-6 of the mean diagonal. Every contender runs in a process of its own, which reads the matrix, and takes its
turn in every round, in a new order. Seconds by the clock and of processor time, medians over the rounds, from the
matrix to the predictions on 1,000 further points; memory is how much the process's peak rises above what it needs
without a matrix, in matrices, so that the matrix itself is 1. The bar at 10,000 points on 2 cores is 90 seconds and
2.5 matrices.

First it is checked that all give the same predictions, to a relative 1e-8.
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

import numpy as np
import torch
from torch import Tensor

from memory import peak_of
from phenoscope import kernels

RIDGE, TARGETS, TESTED, TOLERANCE = 1e-6, 10, 1000, 1e-8


def ours(k: Tensor, y: Tensor, k_test: Tensor) -> Tensor:
    return kernels.kernel_regression(k, y, k_test, ridge=RIDGE).prediction


def inverse(k: Tensor, y: Tensor, k_test: Tensor) -> Tensor:
    return k_test @ torch.linalg.inv(k + RIDGE * k.diagonal().mean() * torch.eye(len(k), dtype=k.dtype)) @ y


def solve(k: Tensor, y: Tensor, k_test: Tensor) -> Tensor:
    return k_test @ torch.linalg.solve(k + RIDGE * k.diagonal().mean() * torch.eye(len(k), dtype=k.dtype), y)


def cholesky(k: Tensor, y: Tensor, k_test: Tensor) -> Tensor:
    lower = torch.linalg.cholesky(k + RIDGE * k.diagonal().mean() * torch.eye(len(k), dtype=k.dtype))
    return k_test @ torch.cholesky_solve(y, lower)


CONTENDERS: dict[str, Callable[..., Tensor]] = {
    "kernels.kernel_regression": ours,
    "torch.linalg.inv": inverse,
    "torch.linalg.solve": solve,
    "torch.linalg.cholesky": cholesky,
}


def write(folder: Path, points: int) -> None:
    """The problem, in files."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(points + TESTED, 64, generator=generator, dtype=torch.float64)

    def kernel(a: Tensor, b: Tensor) -> np.ndarray:
        return kernels.mlp_kernels(a, b, depth=1, sigma_w2=2.0, sigma_b2=0.1).nngp.numpy()

    matrix = np.lib.format.open_memmap(folder / "k.npy", "w+", np.float64, (points, points))
    for start in range(0, points, 500):
        matrix[start : start + 500] = kernel(x[start : min(points, start + 500)], x[:points])
    matrix.flush()
    np.save(folder / "k_test.npy", kernel(x[points:], x[:points]))
    np.save(folder / "y.npy", torch.randn(points, TARGETS, generator=generator, dtype=torch.float64).numpy())


def one(folder: Path, name: str, threads: int) -> dict[str, float]:
    """A contender alone in this process; its predictions go to a file."""
    torch.set_num_threads(threads)
    small = torch.eye(64, dtype=torch.float64)
    CONTENDERS[name](small, small, small)  # what is loaded late
    y, k_test = (torch.from_numpy(np.load(folder / f"{part}.npy")) for part in ("y", "k_test"))
    spent: dict[str, float] = {}

    def run() -> None:
        k = torch.from_numpy(np.load(folder / "k.npy"))
        clock, processor = time.perf_counter(), time.process_time()
        found = CONTENDERS[name](k, y, k_test)
        spent.update(clock=time.perf_counter() - clock, processor=time.process_time() - processor)
        np.save(folder / f"{name}.npy", found.numpy())

    held = peak_of(run)
    return {**spent, "matrices": held / (8 * len(y) ** 2)}


def alone(folder: Path, name: str, threads: int) -> dict[str, float]:
    """The same in a process of its own."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder), "--threads", str(threads)]
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def difference(folder: Path) -> float:
    """The largest distance between two contenders' predictions, relative to their size."""
    found = [np.load(folder / f"{name}.npy") for name in CONTENDERS]
    return max(float(np.abs(each - found[0]).max() / np.abs(found[0]).max()) for each in found)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--small", action="store_true", help="2,000 points")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="this part runs on the CPU alone")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(row := one(options.folder, options.one, options.threads)))
        return row
    points, load = 2000 if options.small else options.points, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, points)
        times: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(options.rounds):
            for contender in random.sample(list(CONTENDERS), len(CONTENDERS)):
                times[contender].append(alone(folder, contender, options.threads))
            if not number and not (off := difference(folder)) < TOLERANCE:
                raise SystemExit(f"the contenders give other predictions, off by {off:.2g}")
    result = {
        "torch": torch.__version__,
        "points": points,
        "threads": options.threads,
        "rounds": options.rounds,
        "load average from to": [load, os.getloadavg()[0]],
        "difference": off,
        "rows": [
            {"contender": name} | {kind: statistics.median(row[kind] for row in rows) for kind in rows[0]}
            for name, rows in times.items()
        ],
    }
    print(json.dumps(result, indent=2) if options.json else said(result))
    return result


def said(result: dict[str, Any]) -> str:
    """As a table."""
    lines = [f"{name}: {value}" for name, value in result.items() if name != "rows"]
    lines += ["", f"{'':28}{'seconds':>10}{'processor':>11}{'matrices':>10}"]
    for row in result["rows"]:
        lines.append(f"{row['contender']:28}{row['clock']:10.1f}{row['processor']:11.1f}{row['matrices']:10.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
