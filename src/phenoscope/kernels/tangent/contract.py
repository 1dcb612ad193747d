"""The kernel between two blocks of examples, each layer by the cheaper of two orders of multiplication."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .block import Block, Layer

_STRIPS = 4  # of a symmetric product, of which each is multiplied only by itself and what follows


def contracted(left: Block, right: Block, *, full: bool, space: int) -> Tensor:
    """(n1, n2, E, E), or the sum over outputs (n1, n2).

    Args:
        left, right: blocks of n1 and n2 examples; the same one for a symmetric kernel.
        full: whether outputs are kept apart.
        space: bytes for what is made on the way.
    """
    n1, n2 = len(left), len(right)
    ours, theirs = (each.gradients.shape[1] if full else 1 for each in (left, right))
    total = left.gradients.new_zeros(n1, ours, n2, theirs)
    if left.gradients.shape[2]:
        _add_product(total, left.gradients, right.gradients)
    for one, other in zip(left.layers, right.layers, strict=True):
        symmetric = one is other
        rows = _rows_at_once(one, full, space)
        counts = n1, n2, max(one.slopes.shape[1], other.slopes.shape[1]), full, symmetric
        if not rows or one.part.by_gradients(*counts) < one.part.by_positions(*counts):
            _by_gradients(total, one, other, space)
        else:
            _by_positions(total, one, other, full, rows)
    return total.transpose(1, 2) if full else total[:, 0, :, 0]


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add products of gradients (n, E, ...) to (n1, E, n2, E), or their sum over outputs to (n1, 1, n2, 1)."""
    symmetric = a is b and len(a) >= 4 * _STRIPS
    flat = total.view(total.shape[0] * total.shape[1], -1)
    rows, columns = a.reshape(flat.shape[0], -1), b.reshape(flat.shape[1], -1)
    if not symmetric:
        flat.addmm_(rows, columns.T)
        return
    step = -(-len(rows) // _STRIPS)
    for start in range(0, len(rows), step):
        strip = rows[start : start + step] @ rows[start:].T
        flat[start : start + step, start:] += strip
        flat[start + step :, start : start + step] += strip[:, step:].T


def _by_gradients(total: Tensor, left: Layer, right: Layer, space: int) -> None:
    """Form the gradients of all examples by the weights of some of a layer's outputs at a time."""
    rule, (_, _, groups, outputs, _) = left.part.rule, left.slopes.shape
    width = rule.width * groups * left.slopes.element_size()
    rows = left.slopes.shape[:2].numel() + (0 if left is right else right.slopes.shape[:2].numel())
    step = min(outputs, max(1, space // (2 * width * rows)))
    for start in range(0, outputs, step):
        a = _formed(left, slice(start, start + step), space // 4)
        _add_product(total, a, a if left is right else _formed(right, slice(start, start + step), space // 4))


def _formed(layer: Layer, some: slice, space: int) -> Tensor:
    rule, slopes = layer.part.rule, layer.slopes[:, :, :, some]
    each = rule.groups * rule.width * layer.part.positions * slopes.element_size()  # of patches
    step = max(1, space // each)
    found = slopes.new_empty(*slopes.shape[:4], rule.width)
    for start in range(0, len(slopes), step):
        rows = slice(start, start + step)
        found[rows] = rule.formed(rule.taken([x[rows] for x in layer.inputs]), slopes[rows])
    return found


def _by_positions(total: Tensor, left: Layer, right: Layer, full: bool, step: int) -> None:
    """Multiply patches, and slopes, at every pair of positions."""
    rule = left.part.rule
    for i in range(0, total.shape[0], step):
        patches = rule.taken([x[i : i + step] for x in left.inputs])
        for j in range(i if left is right else 0, total.shape[2], step):
            same = left is right and i == j
            others = patches if same else rule.taken([x[j : j + step] for x in right.inputs])
            gram = rule.gram(patches, others)
            part = _summed(gram, left.slopes[i : i + step], right.slopes[j : j + step], full)
            total[i : i + step, :, j : j + step] += part
            if left is right and not same:
                total[j : j + step, :, i : i + step] += part.permute(2, 3, 0, 1)


def _summed(gram: Tensor, a: Tensor, b: Tensor, full: bool) -> Tensor:
    """Sum over groups and pairs of positions of products (G, n1, L, n2, L) of patches times those of slopes."""
    groups, n1, positions, n2, _ = gram.shape
    if full and positions > 1:
        return _summed_apart(gram, a, b)
    if full:
        rows, columns = (s[..., 0].permute(2, 0, 1, 3).flatten(1, 2) for s in (a, b))
        product = torch.bmm(rows, columns.transpose(1, 2)).view(groups, n1, a.shape[1], n2, b.shape[1])
        product *= gram[..., 0][..., None]
        return product.sum(0) if groups > 1 else product[0]
    rows, columns = (s.permute(2, 0, 4, 1, 3).reshape(groups, s.shape[0] * positions, -1) for s in (a, b))
    product = torch.bmm(rows, columns.transpose(1, 2)).view(groups, n1, positions, n2, positions)
    product *= gram
    return (product.sum((0, 2, 4)) if positions > 1 or groups > 1 else product[0, :, 0, :, 0])[:, None, :, None]


def _summed_apart(gram: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(n1, E, n2, E): for one example on the right at a time, its slopes through the products of patches, then ours.

    That is C O L^2 + C^2 O L multiplications a pair, and not the C^2 O L^2 of all slopes with all slopes.
    """
    groups, n1, _, n2, _ = gram.shape
    ours = a.permute(0, 1, 2, 4, 3).reshape(n1, a.shape[1], -1)
    total = gram.new_empty(n1, a.shape[1], n2, b.shape[1])
    for j, slopes in enumerate(b.permute(0, 2, 4, 3, 1).flatten(3)):  # (groups, positions, O x E)
        through = torch.bmm(gram[:, :, :, j].flatten(1, 2), slopes).view(groups, n1, -1, b.shape[1])
        total[:, :, j] = torch.bmm(ours, through.transpose(0, 1).reshape(n1, -1, b.shape[1]))
    return total


def _rows_at_once(layer: Layer, full: bool, space: int) -> int:
    """Examples on either side whose products at all pairs of positions fit; 0 if not even one does."""
    _, count, groups, outputs, positions = layer.slopes.shape
    size = groups * positions * layer.slopes.element_size()
    if not full or positions == 1:
        return math.isqrt(space // (size * positions * (1 + (count**2 if full else 1))))
    return min(math.isqrt(space // (2 * size * positions)), space // (4 * size * outputs * count))
