"""Learning representations without labels, and probing them."""

from .losses.contrastive import InfoNCE, infonce, ntxent
from .probes.probe import probe
from .scores import AlignmentUniformity, Collapse, alignment_uniformity, collapse
from .ssl.result import SSLResult, train_views
from .ssl.simclr import simclr

__all__ = [
    "AlignmentUniformity",
    "Collapse",
    "InfoNCE",
    "SSLResult",
    "alignment_uniformity",
    "collapse",
    "infonce",
    "ntxent",
    "probe",
    "simclr",
    "train_views",
]
