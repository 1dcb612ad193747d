"""How much memory a piece of work makes this process, or its GPU, come to hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")  # what getrusage says counts the process that started this one, too


def peak_of(run: Callable[[], object], device: str = "cpu") -> int:
    """Bytes held at the peak of a run, less what was held before it; on Linux, or by torch's allocator on CUDA."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _held("VmRSS")
    run()
    return _held("VmHWM") - before


def _held(name: str) -> int:
    return 1024 * next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
