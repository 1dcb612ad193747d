"""Pages and figures for recorded runs and for studies, as files that need no network, or served while things run."""

from .diff_page import run_diff
from .gallery import gallery
from .run_report import run_report
from .serve import serve

__all__ = ["gallery", "run_diff", "run_report", "serve"]
