"""What a network looks at: attributions, concepts, and scores of them."""

from .attribution.attribution import Attribution
from .attribution.deeplift import deeplift, pair_contribution
from .attribution.integrated_gradients import integrated_gradients
from .attribution.saliency import gradient_x_input, saliency
from .concepts.tcav import TcavResult, tcav
from .scores.completeness import completeness

__all__ = [
    "Attribution",
    "TcavResult",
    "completeness",
    "deeplift",
    "gradient_x_input",
    "integrated_gradients",
    "pair_contribution",
    "saliency",
    "tcav",
]
