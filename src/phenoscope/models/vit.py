"""A small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .init.first import Init, initialize_
from .init.gaussian import draw_
from .knobs import Activation, activation_of, check_dropout, check_shape


def vit(
    shape: Sequence[int],
    num_classes: int,
    *,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    patch: int = 4,
    mlp_width: int | None = None,
    activation: Activation = "gelu",
    norm: str | None = "layer",
    dropout: float = 0.0,
    init: Init = "glorot",
    generator: torch.Generator | int | None = None,
) -> nn.Module:
    """A vision transformer (Dosovitskiy et al., "An Image Is Worth 16x16 Words", ICLR 2021).

    Patches become vectors (`patches`, a convolution as wide as its stride), a class token and learned positions are
    added, pre-norm blocks of attention and a two-layer perceptron follow (`blocks.0` ...), and the class token is
    normalized (`norm`) and scored (`logits`).

    Args:
        shape: (channels, height, width) of one image.
        num_classes: number of scores.
        width: size of a token; a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        patch: pixels of a patch, a side; divides the image.
        mlp_width: hidden units of a block's perceptron, 4 times `width` unless said.
        activation: of the perceptrons, as in `mlp`.
        norm: "layer", or `None` for none.
        dropout: share of what attention and perceptron put out that is zero in training.
        init: as in `mlp`; positions are drawn from N(0, 0.02^2), the class token starts at zero.
        generator: what the weights are drawn from; the network is made on the generator's device, the CPU for a seed.

    Returns:
        A network from (N, *shape) to scores (N, num_classes).

    Raises:
        InputError: a knob outside its range, or an image that does not divide into patches.

    Examples:
        >>> vit((1, 8, 8), 10, patch=2, width=16, depth=2, generator=0)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    channels, height, breadth = check_shape(shape, num_classes, 2)
    check_dropout(dropout)
    if min(width, depth, heads, patch) < 1 or width % heads or (mlp_width is not None and mlp_width < 1):
        raise InputError(
            f"width={width}, depth={depth}, heads={heads} and patch={patch} must be at least 1, and the width a "
            "multiple of the heads"
        )
    if height % patch or breadth % patch:
        raise InputError(f"an image of {height}x{breadth} does not divide into patches of {patch}x{patch}")
    if norm not in (None, "layer"):
        raise InputError(f'norm of a transformer must be "layer" or None, not {norm!r}')
    with torch.device("meta"):
        network = VisionTransformer(
            channels,
            (height // patch) * (breadth // patch),
            patch,
            width,
            [Block(width, heads, mlp_width or 4 * width, activation, norm, dropout) for _ in range(depth)],
            num_classes,
            norm,
        )
    initialize_(network, init, generator)
    return network


class VisionTransformer(nn.Module):
    """Patches, blocks, and the scores of the class token."""

    def __init__(
        self,
        channels: int,
        places: int,
        patch: int,
        width: int,
        blocks: Sequence[nn.Module],
        classes: int,
        norm: str | None,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, places + 1, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(norm, width)
        self.logits = nn.Linear(width, classes)

    def first_values_(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.token)
        draw_(self.positions, 0.02, generator)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        return self.logits(self.norm(self.blocks(tokens)[:, 0]))


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x))."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: Activation, norm: str | None, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = _norm(norm, width)
        self.attention = Attention(width, heads)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm2 = _norm(norm, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation_of(activation), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Multi-head self-attention in plain operations, of which every derivative can be taken (Vaswani et al., 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


def _norm(norm: str | None, width: int) -> nn.Module:
    return nn.Identity() if norm is None else nn.LayerNorm(width)
