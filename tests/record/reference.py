"""Equations 1 to 3 written out in float64 NumPy, filter by filter: the reference for every faster version."""

import numpy as np
import torch


def widened(weight: torch.Tensor) -> np.ndarray:
    """The weight in the type in which differences are formed by definition: float32, or float64 for float64 weights."""
    return weight.detach().cpu().to(torch.float64 if weight.dtype == torch.float64 else torch.float32).numpy()


def reference(before, after, tau, filters):
    """(distance, changed, idle) over filters, each filter given as a list of channels, each a list of index tuples."""
    before, after = widened(before), widened(after)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = (after - before).astype(np.float64)
    distance, changed, idle = [], [], []
    for channels in filters:
        entries = [difference[index] for channel in channels for index in channel]
        far = [[not abs(difference[index]) <= tau for index in channel] for channel in channels]
        distance.append(float(np.sum(np.square(entries))))
        changed.append(sum(map(sum, far)) / len(entries))
        idle.append(sum(not any(channel) for channel in far) / len(channels))
    return np.array(distance), np.array(changed), np.array(idle)


def kernel_indices(shape):
    return list(np.ndindex(*shape))


def convolution_filters(shape):
    """Output channel o, input channel i of its group: weight[o, i]."""
    return [[[(o, i, *k) for k in kernel_indices(shape[2:])] for i in range(shape[1])] for o in range(shape[0])]


def transposed_filters(shape, groups):
    """Output channel g * O/groups + o reads the input channels of group g: weight[g * I/groups + i, o]."""
    size = shape[0] // groups
    return [
        [[(g * size + i, o, *k) for k in kernel_indices(shape[2:])] for i in range(size)]
        for g in range(groups)
        for o in range(shape[1])
    ]


def head_filters(shape, first, last, heads):
    """Head h owns rows h d to (h + 1) d of the part; an input unit is a channel of d entries."""
    d = (last - first) // heads
    return [[[(first + h * d + r, i) for r in range(d)] for i in range(shape[1])] for h in range(heads)]
