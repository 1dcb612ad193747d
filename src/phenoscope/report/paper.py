"""Numbers that the paper prints, to stand beside a run of the same network, as a quotation.

Hu, Wang, Li and Huang, "How Functions Evolve in Deep Convolutional Neural Network" (VCIP 2018), table IV: filters
zeroed, drop of accuracy in percentage points, and that of as many random filters.
"""

from __future__ import annotations

from ..models import RESNET50_OBSERVED, VGG16_OBSERVED
from ..record.run import Run
from .tables import table

_VGG = [
    ("7 of 64", 0.0652, 0.0272),
    ("15 of 128", 0, 0.0292),
    ("68 of 256", 0, 0.0522),
    ("45 of 512", 0, 0.0149),
    ("272 of 512", 0, 0.1988),
]
_RESNET = [
    ("7 of 64", 0.2569, 0.431),
    ("15 of 64", 0.0299, 0.0159),
    ("68 of 128", 0.0729, 0.0317),
    ("45 of 256", 0.0001, -0.01),
    ("272 of 512", 0.0005, 0.0028),
]
_QUOTED = [("VGG-16", VGG16_OBSERVED, _VGG), ("ResNet-50 v2", RESNET50_OBSERVED, _RESNET)]


def observed(run: Run) -> list[str] | None:
    """The layers that the paper shows, if the run is of one of its networks."""
    return next((list(layers) for _, layers, _ in _QUOTED if all(name in run.layers for name in layers)), None)


def paper_table(run: Run) -> str:
    """Table IV, if the run is of one of the paper's networks; else nothing."""
    for network, layers, numbers in _QUOTED:
        if observed(run) == list(layers):
            rows = [
                [layer, zeroed, _points(drop), _points(random)]
                for layer, (zeroed, drop, random) in zip(layers, numbers, strict=True)
            ]
            return (
                "<blockquote><p><strong>Quoted, not measured here.</strong> Table IV of Hu, Wang, Li and Huang (VCIP "
                f"2018): {network} at full width on 100 000 ImageNet images in 1000 classes, about 60 000 steps. "
                "Numbers of another scale and other data, to read beside those above.</p>\n"
                + table(["layer", "zeroed", "redundant", "random"], rows, "Drop of accuracy in percentage points")
                + "</blockquote>\n"
            )
    return ""


def _points(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−") if value else "0"
