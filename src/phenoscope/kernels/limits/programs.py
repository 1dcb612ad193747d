"""Gated, normalized and attentive networks at infinite width, ready made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InputError
from ...theory.gaussian.activations import activation
from .netsor import Program, ProgramLimit, Vector, netsor
from .recurrent import Act
from .tokens import stacked


def gru_nngp(
    tokens: Tensor | Sequence[Tensor],
    *,
    sigma_w2: float = 1.0,
    sigma_u2: float = 1.0,
    sigma_b2: float = 0.0,
    sigma_v2: float = 1.0,
    points: int = 2**14,
    generator: torch.Generator | int | None = 0,
) -> Tensor:
    """The kernel of an infinitely wide gated recurrent network, between any two moments of any two sequences.

    With g(x) = (1 + erf x) / 2, z = g(U_z x_t + W_z h + b_z), r = g(U_r x_t + W_r h + b_r), c = erf(U_c x_t + W_c (r h)
    + b_c) and h_t = (1 - z) h + z c, h = h_{t-1}, h_0 = 0; outputs are v . h_t / sqrt(n) (Yang, "Tensor Programs I",
    NeurIPS 2019). Computed by `netsor`: expectations in up to 3 T dimensions for each sequence.

    Args:
        tokens: as in `rnn_nngp`.
        sigma_w2, sigma_u2, sigma_b2, sigma_v2: as in `rnn_nngp`, the same for both gates and the candidate state.
        points, generator: as in `netsor`.

    Returns:
        (n, n) for n tokens in all, in the order of the sequences; float64, where the tokens are.

    Raises:
        InputError: sequences of unsuitable shapes.
    """
    given = stacked(tokens)

    def gate(x: Tensor) -> Tensor:
        return (1 + torch.erf(x)) / 2

    def program(lines: ProgramLimit) -> list[Vector]:
        into = {name: lines.inputs(sigma_u2 * given.gram + sigma_b2) for name in ("z", "r", "c")}

        def pre(name: str, token: int, h: Vector | None) -> Vector:
            if h is None:
                return into[name][token]
            return lines.combine([into[name][token], lines.matmul(f"W_{name}", h, sigma_w2=sigma_w2)], [1.0, 1.0])

        states = []
        for sequence in given.sequences():
            h: Vector | None = None
            for token in sequence:
                z = pre("z", token, h)
                if h is None:
                    h = lines.apply(lambda z, c: gate(z) * torch.erf(c), z, pre("c", token, None))
                else:
                    kept = lines.apply(lambda r, h: gate(r) * h, pre("r", token, h), h)
                    c = pre("c", token, kept)
                    h = lines.apply(lambda z, c, h: (1 - gate(z)) * h + gate(z) * torch.erf(c), z, c, h)
                states.append(h)
        return states

    return netsor(program, sigma_v2=sigma_v2, points=points, generator=generator).to(given.gram.device)


def layernorm_program(
    x: Tensor, *, depth: int = 1, act: Act = "relu", sigma_w2: float = 1.0, sigma_b2: float = 0.0, eps: float = 1e-5
) -> Program:
    """A program for `netsor`: a fully connected network with layer normalization before every activation.

    The mean and variance over a layer's units become numbers at infinite width (Yang, "Tensor Programs I", NeurIPS
    2019), so that every example's pre-activations are divided by their standard deviation.

    Args:
        x: (N, ...) inputs.
        depth: number of hidden layers.
        act: the activation.
        sigma_w2, sigma_b2: variances of weights, times fan-in, and of biases.
        eps: added to the variance, as in `nn.LayerNorm`.

    Returns:
        A program whose vectors are the last layer's activations, one for each input.

    Raises:
        InputError: no hidden layer, or no inputs.
    """
    given = stacked(_flat(x, depth))

    def program(lines: ProgramLimit) -> list[Vector]:
        at: Sequence[Vector] = lines.inputs(sigma_w2 * given.gram + sigma_b2)
        for layer in range(1, depth + 1):
            h = [lines.apply(act, _normalized(lines, each, eps)) for each in at]
            if layer < depth:
                at = _dense(lines, f"W_{layer}", h, sigma_w2, sigma_b2)
        return h

    return program


def batchnorm_program(
    x: Tensor, *, depth: int = 1, act: Act = "relu", sigma_w2: float = 1.0, eps: float = 1e-5
) -> Program:
    """A program for `netsor`: a fully connected network with batch normalization, over all of x, before activations.

    A unit's pre-activations of all N examples are one joint function: less their mean, over their standard deviation
    (Yang, "Tensor Programs I", NeurIPS 2019). Biases have no effect and are left out. Expectations are in N
    dimensions a layer.

    Args:
        x: (N, ...) inputs, the batch.
        depth: number of hidden layers.
        act: the activation.
        sigma_w2: variance of weights times fan-in.
        eps: added to the variance, as in `nn.BatchNorm1d`.

    Returns:
        A program whose vectors are the last layer's activations, one for each input.

    Raises:
        InputError: no hidden layer, or fewer than two inputs.
    """
    given, f = stacked(_flat(x, depth)), activation(act).function
    count = len(given.gram)
    if count < 2:
        raise InputError("a batch to normalize over needs at least two inputs")

    def program(lines: ProgramLimit) -> list[Vector]:
        at: Sequence[Vector] = lines.inputs(sigma_w2 * given.gram)
        for layer in range(1, depth + 1):
            centered = [
                lines.combine(at, [(1.0 if i == j else 0.0) - 1 / count for j in range(count)]) for i in range(count)
            ]
            spread = lines.apply(lambda *g: (torch.stack(g).square().mean(0) + eps).sqrt(), *centered)
            h = [lines.apply(lambda g, s: f(g / s), each, spread) for each in centered]
            if layer < depth:
                at = _dense(lines, f"W_{layer}", h, sigma_w2, 0.0)
        return h

    return program


def attention_program(
    tokens: Tensor | Sequence[Tensor],
    *,
    depth: int = 1,
    act: Act = "relu",
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    causal: bool = True,
    eps: float = 1e-5,
) -> Program:
    """A program for `netsor`: blocks of self-attention and of a fully connected part, each with a layer normalization.

    A block embeds its tokens, k_t = U x_t, attends, h_t = LN(k_t + sum_s a_ts k_s) with a_t = softmax(k_t . k_s / n),
    and puts out LN(h_t + W2 f(W1 h_t + b1) + b2). One vector is key, query and value, and scores are divided by n, so
    that they become numbers at infinite width; divided by sqrt(n) they would grow without bound (the transformer of
    Yang, "Tensor Programs I", NeurIPS 2019).

    Args:
        tokens: as in `rnn_nngp`; a sequence attends to itself only, and there is no embedding of positions.
        depth: number of blocks.
        act: the activation f.
        sigma_w2, sigma_b2: variances of weights, times fan-in, and of biases.
        causal: a token attends to itself and to those before it; `False`: to all of its sequence.
        eps: added to variances, as in `nn.LayerNorm`.

    Returns:
        A program whose vectors are what the last block puts out, one for each token in the order of the sequences.

    Raises:
        InputError: sequences of unsuitable shapes, or no block.
    """
    given = stacked(tokens)
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")

    def program(lines: ProgramLimit) -> list[Vector]:
        keys: Sequence[Vector] = lines.inputs(sigma_w2 * given.gram)
        for block in range(1, depth + 1):
            h = []
            for sequence in given.sequences():
                for t in sequence:
                    seen = range(sequence.start, t + 1) if causal else sequence
                    scores = torch.tensor([lines.moment(keys[t], keys[s]) for s in seen], dtype=torch.float64)
                    weights = [1.0, *scores.softmax(0).tolist()]
                    attended = lines.combine([keys[t], *(keys[s] for s in seen)], weights)
                    h.append(_normalized(lines, attended, eps))
            inner = _dense(lines, f"W1_{block}", h, sigma_w2, sigma_b2)
            outer = _dense(lines, f"W2_{block}", [lines.apply(act, each) for each in inner], sigma_w2, sigma_b2)
            out = [_added(lines, a, b) for a, b in zip(h, outer, strict=True)]
            normalized = [_normalized(lines, each, eps) for each in out]
            if block < depth:
                keys = [lines.matmul(f"U_{block}", each, sigma_w2=sigma_w2) for each in normalized]
        return normalized

    return program


def _dense(lines: ProgramLimit, name: str, h: Sequence[Vector], sigma_w2: float, sigma_b2: float) -> list[Vector]:
    products = [lines.matmul(name, each, sigma_w2=sigma_w2) for each in h]
    if not sigma_b2:
        return products
    (bias,) = lines.inputs(torch.full((1, 1), sigma_b2))
    return [lines.combine([each, bias], [1.0, 1.0]) for each in products]


def _normalized(lines: ProgramLimit, h: Vector, eps: float) -> Vector:
    """(h - its mean) / its standard deviation: a combination of one where h is Gaussian, and has no mean."""
    mean = lines.moment(h)
    scale = (max(lines.moment(h, h) - mean**2, 0.0) + eps) ** -0.5
    if h.place is not None and not mean:
        return lines.combine([h], [scale])
    return lines.apply(lambda values: (values - mean) * scale, h)


def _added(lines: ProgramLimit, a: Vector, b: Vector) -> Vector:
    if a.place is not None and b.place is not None:
        return lines.combine([a, b], [1.0, 1.0])
    return lines.apply(torch.add, a, b)


def _flat(x: Tensor, depth: int) -> Tensor:
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")
    if x.ndim < 2 or not len(x):
        raise InputError(f"inputs (N, ...) are needed, not of shape {tuple(x.shape)}")
    return x.flatten(1)
