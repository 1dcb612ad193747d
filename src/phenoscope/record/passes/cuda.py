"""The pass on CUDA: one launch, results carried to the host beside the training stream, which never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .layout import Layout, flat
from .watched import Moved, Restructured, Watched, round_down

_SLOTS = 40  # a few more than the records that the writer lets gather
_SLOT_BYTES = 64 * 2**20


class CudaPass:
    """Measures layers of one dtype on one CUDA device; the extra memory is one copy of the weights.

    Results gather in slots of device memory, go over to pinned memory on a stream of their own, and a slot is used
    again when its result has been read.
    """

    def __init__(self, layers: list[Watched]) -> None:
        import triton.language as tl

        from . import triton_kernels as kernels

        self._kernels = kernels
        self._device, self._dtype = layers[0].weight.device, layers[0].weight.dtype
        self._element = getattr(tl, str(self._dtype).removeprefix("torch."))
        self._wide = tl.float64 if self._dtype == torch.float64 else tl.float32
        self._weights = [layer.weight for layer in layers]
        self._strides = [weight.stride() for weight in self._weights]
        with torch.cuda.device(self._device):
            copies = {id(w): flat(w.detach()).clone() for w in self._weights}
            self._copies = [copies[id(w)] for w in self._weights]
            self._filters = sum(len(layer) for layer in layers)
            layouts: list[Layout] = [layer.layout for layer in layers]  # type: ignore[misc]
            self._addresses = [w.data_ptr() for w in self._weights]
            self._rows = np.stack(
                [
                    _row(at, copy, layer, layout)
                    for at, copy, layer, layout in zip(self._addresses, self._copies, layers, layouts, strict=True)
                ]
            )
            self._offsets = self._rows[:, 0] - np.array(self._addresses)
            programs = np.concatenate([_programs(i, row) for i, row in enumerate(self._rows)])
            self._count = len(programs)
            self._programs = torch.from_numpy(programs).to(self._device)
            self._thresholds = torch.tensor(
                [float(round_down(layer.threshold, self._dtype)) for layer in layers],
                dtype=torch.float64,
                device=self._device,
            )
            self._table = torch.from_numpy(self._rows).to(self._device)
            self._side = torch.cuda.Stream()
            slots = max(2, min(_SLOTS, _SLOT_BYTES // (16 * self._filters)))
            self._free = deque(_Slot(self._filters, self._device) for _ in range(slots))
            self.measure()()  # compile now, not in the training loop

    def measure(self) -> Callable[[], Moved]:
        """What moved since the last call: queued on the current stream; whoever asks for the result waits for it."""
        with torch.cuda.device(self._device):
            self._follow()
            slot = self._free.popleft() if self._free else _Slot(self._filters, self._device)
            self._launch(slot)
            slot.carry(self._side)

        def result() -> Moved:
            numbers = slot.read()
            self._free.append(slot)
            return numbers

        return result

    def _launch(self, slot: _Slot) -> None:
        k = self._kernels
        k.measure[(self._count,)](
            self._programs,
            self._table,
            self._thresholds,
            slot.distance,
            slot.changed,
            slot.moved,
            element=self._element,
            wide=self._wide,
            fields=k.FIELDS,
            tile=k.TILE,
            band=k.BAND,
            num_warps=4,
        )

    def _follow(self) -> None:
        """Find the weights again if other memory was put behind them; the new table goes over without waiting."""
        addresses = [w.data_ptr() for w in self._weights]
        if addresses == self._addresses:
            return
        if [w.stride() for w in self._weights] != self._strides or self._weights[0].device != self._device:
            raise Restructured
        self._addresses = addresses
        self._rows[:, 0] = np.array(addresses) + self._offsets
        self._table = torch.from_numpy(self._rows).pin_memory().to(self._device, non_blocking=True)


class _Slot:
    """Room for one result on the device and in pinned memory."""

    def __init__(self, filters: int, device: torch.device) -> None:
        self._device = torch.empty(filters * 16, dtype=torch.uint8, device=device)
        self._host = torch.empty(filters * 16, dtype=torch.uint8, pin_memory=True)
        self.distance, self.changed, self.moved = _columns(self._device, filters)
        self._columns = _columns(self._host, filters)
        self._made, self._here = torch.cuda.Event(), torch.cuda.Event(blocking=True)

    def carry(self, side: torch.cuda.Stream) -> None:
        self._made.record()
        side.wait_event(self._made)
        with torch.cuda.stream(side):
            self._host.copy_(self._device, non_blocking=True)
            self._here.record()

    def read(self) -> Moved:
        self._here.synchronize()
        distance, changed, moved = (column.numpy() for column in self._columns)
        return Moved(distance.copy(), changed.astype(np.int64), moved.astype(np.int64))


def _columns(memory: Tensor, filters: int) -> tuple[Tensor, Tensor, Tensor]:
    counts = memory[filters * 8 :].view(torch.int32)
    return memory[: filters * 8].view(torch.float64), counts[:filters], counts[filters:]


def _row(address: int, copy: Tensor, layer: Watched, at: Layout) -> np.ndarray:
    from . import triton_kernels as k

    if at.order == "channels":
        form = (
            k.NARROW
            if at.channels <= k.NARROW_CHANNELS
            else k.MEDIUM
            if at.channels <= k.MEDIUM_CHANNELS
            else k.WIDE_ROWS
        )
    else:
        form = k.ENTRIES if at.order == "entries" else k.FILTERS
    size = copy.element_size()
    return np.array(
        [
            address + at.offset * size,
            copy.data_ptr() + at.offset * size,
            at.filters,
            at.groups * at.filters,
            at.channels,
            at.entries,
            at.sg,
            at.sf,
            at.sc,
            at.sk,
            layer.start,
            form,
        ],
        np.int64,
    )


def _programs(index: int, row: np.ndarray) -> np.ndarray:
    """(layer, first filter) of every program that a layer takes."""
    from . import triton_kernels as k

    widths = {k.NARROW: k.TILE // k.NARROW_CHANNELS, k.MEDIUM: k.TILE // k.MEDIUM_CHANNELS, k.FILTERS: k.BAND}
    first = np.arange(0, row[3], widths.get(int(row[11]), 1))
    return np.stack([np.full_like(first, index), first], axis=1)
