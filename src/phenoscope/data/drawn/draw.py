"""What scenes are drawn from: the law of every factor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from .colors import Color, from_palette, rgb
from .render import WAVES, Factors, index_of

_APART = 0.3
_TRIES = 1000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The arguments of `data.shapes` that say how scenes are drawn."""

    size: int
    channels: int
    classes: tuple[str, ...]
    radius: tuple[float, float]
    rotation: float
    colors: tuple[Color, ...] | None
    textures: tuple[str, ...]
    period: tuple[float, float]
    contrast: float
    backgrounds: tuple[str, ...]
    background_colors: tuple[Color, ...] | None
    background_contrast: float
    second: float
    soft: float
    label: str
    correlate: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The values of the factor that is the label."""
        return tuple(map(str, self._values[self.label]))

    @property
    def _values(self) -> dict[str, tuple[Any, ...]]:
        """By factor, the listed values."""
        return {
            "shape": self.classes,
            "texture": self.textures,
            "color": self.colors or (),
            "background": self.backgrounds,
        }

    def check(self) -> None:
        """Raise an `InputError` that names what is wrong."""
        for factor, names in (("shape", self.classes), ("texture", self.textures), ("background", self.backgrounds)):
            for name in names:
                index_of(factor, name)
            if not names or len(set(names)) < len(names):
                raise InputError(f"every {factor} is named once, and there is at least one, not {names}")
        if self.label not in ("shape", "texture", "color", "background"):
            raise InputError(f'label must be "shape", "texture", "color" or "background", not {self.label!r}')
        if len(self.names) < 2:
            raise InputError(f"the label is the {self.label}: give two values of it or more, not {self.names}")
        low, high = self.radius
        room = self.size / (4 if self.second else 2)
        if not 0 < low <= high or high > room - 0.5:
            raise InputError(f"radius must be (low, high) of at most {room - 0.5:g} pixels here, not {self.radius}")
        if self.channels not in (1, 3):
            raise InputError(f"images have 3 channels, or 1 of gray, not {self.channels}")
        if not 0 < self.period[0] <= self.period[1] or not 0 <= self.second <= 1:
            raise InputError(f"period is (low, high) and second a share, not {self.period} and {self.second}")
        for color in (*(self.colors or ()), *(self.background_colors or ())):
            rgb(color)
        for factor, law in self.correlate.items():
            self._law(factor, law)

    def _law(self, factor: str, law: Any) -> Tensor:
        """Probabilities (classes, values) of a factor given the class."""
        values = self._values.get(factor)
        if factor == self.label or not values:
            raise InputError(f"correlate names factors with listed values other than the label, not {factor!r}")
        table = torch.as_tensor(law, dtype=torch.float64)
        wanted = (len(self.names), len(values))
        if table.shape != wanted or (table < 0).any() or (table.sum(1) - 1).abs().max() > 1e-6:
            raise InputError(
                f"correlate[{factor!r}] must be probabilities of shape {wanted}: for each class a row of sum 1"
            )
        return table

    def draw(self, n: int, generator: torch.Generator) -> tuple[Factors, Tensor]:
        """The factors of `n` scenes, and their labels."""
        objects = 2 if self.second else 1

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(n, *shape, generator=generator, device=generator.device).cpu()

        label = _integers(len(self.names), n, generator)
        index = {}
        for factor, values in self._values.items():
            if factor == self.label:
                index[factor] = label
            elif factor in self.correlate:
                rows = self._law(factor, self.correlate[factor])[label].to(generator.device)
                index[factor] = torch.multinomial(rows, 1, generator=generator)[:, 0].cpu()
            else:
                index[factor] = _integers(len(values or (0,)), n, generator)
        shape = torch.tensor([index_of("shape", name) for name in self.classes])[index["shape"]][:, None]
        texture = torch.tensor([index_of("texture", name) for name in self.textures])[index["texture"]]
        color = from_palette(self.colors, self.channels, index["color"], uniform)[:, None]
        if objects == 2:
            other = (index["shape"] + 1 + _integers(max(1, len(self.classes) - 1), n, generator)) % len(self.classes)
            other = torch.tensor([index_of("shape", name) for name in self.classes])[other]
            other[torch.rand(n, generator=generator, device=generator.device).cpu() >= self.second] = -1
            shape = torch.stack([shape[:, 0], other], 1)
            pick = _integers(len(self.colors or (0,)), n, generator)
            color = torch.cat([color, from_palette(self.colors, self.channels, pick, uniform)[:, None]], 1)
        radius = uniform(*self.radius, objects)
        x, y = self._places(radius, generator)
        background_color = self._background_colors(color, shape, generator)
        return Factors(
            shape=shape,
            x=x,
            y=y,
            radius=radius,
            rotation=uniform(-self.rotation, self.rotation, objects),
            color=color,
            texture=texture[:, None].repeat(1, objects),
            period=uniform(*self.period, objects),
            angle=uniform(0, math.pi, objects),
            phase=uniform(0, 2 * math.pi, objects),
            contrast=torch.full((n, objects), float(self.contrast)),
            background=torch.tensor([index_of("background", name) for name in self.backgrounds])[index["background"]],
            background_color=background_color,
            background_period=uniform(*self.period),
            background_angle=uniform(0, math.pi),
            background_phase=uniform(0, 2 * math.pi),
            background_contrast=torch.full((n,), float(self.background_contrast)),
            waves=self._waves(n, generator),
        ), label

    def _waves(self, n: int, generator: torch.Generator) -> Tensor:
        waves = torch.randn(n, self.channels, WAVES, generator=generator, device=generator.device).cpu()
        return waves.expand(n, 3, WAVES).contiguous()

    def _places(self, radius: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Centers such that every object lies inside, and two do not touch."""
        places = torch.empty(2, *radius.shape)
        open_ = torch.arange(len(radius))
        for _ in range(_TRIES):
            own = radius[open_] + 0.5
            drawn = torch.rand(2, *own.shape, generator=generator, device=generator.device).cpu()
            places[:, open_] = own + drawn * (self.size - 2 * own)
            if radius.shape[1] == 1:
                break
            apart = torch.hypot(*(places[:, open_, 0] - places[:, open_, 1])) > radius[open_].sum(1) + 1
            open_ = open_[~apart]
            if not len(open_):
                break
        else:
            raise InputError(f"two objects of radius up to {self.radius[1]} find no room in {self.size} pixels")
        return places[0], places[1]

    def _background_colors(self, color: Tensor, shape: Tensor, generator: torch.Generator) -> Tensor:
        """Colors of which some channel differs by 0.3 or more from that of every object."""
        background = torch.empty(len(color), 3)
        open_ = torch.arange(len(color))
        for _ in range(_TRIES):
            if not len(open_):
                return background

            def uniform(low: float, high: float, *sizes: int, count: int = len(open_)) -> Tensor:
                return (
                    low + (high - low) * torch.rand(count, *sizes, generator=generator, device=generator.device).cpu()
                )

            pick = _integers(len(self.background_colors or (0,)), len(open_), generator)
            background[open_] = from_palette(self.background_colors, self.channels, pick, uniform)
            if self.background_colors is not None:
                return background
            apart = (color[open_] - background[open_, None]).abs().amax(2) >= _APART
            open_ = open_[~(apart | (shape[open_] < 0)).all(1)]
        raise InputError("no background color differs enough from the objects' colors: give background_colors=")


def _integers(count: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (n,), generator=generator, device=generator.device).cpu()
