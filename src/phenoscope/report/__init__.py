"""Pages and figures for recorded runs and for studies, as files that need no network, or served while things run."""

from .diff_page import run_diff
from .figures import accuracy_by_density, generalization_curve, loss_surface
from .gallery import gallery
from .run_report import run_report
from .serve import serve

__all__ = ["accuracy_by_density", "gallery", "generalization_curve", "loss_surface", "run_diff", "run_report", "serve"]
