"""Pages and figures for recorded runs, as files that need no network."""

from .run_report import run_report

__all__ = ["run_report"]
