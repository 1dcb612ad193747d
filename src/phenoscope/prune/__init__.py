"""Make networks smaller: weights masked before or after training, filters left behind removed for good."""

from ..models.masks import Masks
from .controls import random_mask_control, reinit_control
from .imp import Ticket, imp
from .magnitude import one_shot
from .removable import Removable, removable
from .scores import keep_top
from .slim import slim, slim_report
from .snip import snip, snip_scores

__all__ = [
    "Masks",
    "Removable",
    "Ticket",
    "imp",
    "keep_top",
    "one_shot",
    "random_mask_control",
    "reinit_control",
    "removable",
    "slim",
    "slim_report",
    "snip",
    "snip_scores",
]
