"""Make networks smaller: weights masked before or after training, filters left behind removed for good."""

from ..models.masks import Masks
from .by_evolution import by_evolution
from .compare import compare
from .controls import perturb_ticket, perturbation_size, random_mask_control, reinit_control
from .edge_popup import edge_popup
from .grasp import grasp, grasp_scores
from .imp import Ticket, imp
from .isometry import enforce_isometry, isometry_error
from .magnitude import one_shot
from .ntt import ntt
from .removable import Removable, removable
from .retrain import Retraining, retrain, retraining
from .scores import keep_top
from .slim import slim, slim_report
from .snip import snip, snip_scores
from .synflow import layer_collapse, saliency_conservation, synflow, synflow_scores

__all__ = [
    "Masks",
    "Removable",
    "Retraining",
    "Ticket",
    "by_evolution",
    "compare",
    "edge_popup",
    "enforce_isometry",
    "grasp",
    "grasp_scores",
    "imp",
    "isometry_error",
    "keep_top",
    "layer_collapse",
    "ntt",
    "one_shot",
    "perturb_ticket",
    "perturbation_size",
    "random_mask_control",
    "reinit_control",
    "removable",
    "retrain",
    "retraining",
    "saliency_conservation",
    "slim",
    "slim_report",
    "snip",
    "snip_scores",
    "synflow",
    "synflow_scores",
]
