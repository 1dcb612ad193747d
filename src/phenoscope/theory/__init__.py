"""Closed forms and deterministic recursions; no network."""

__all__: list[str] = []
