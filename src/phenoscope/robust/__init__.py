"""Attacks, and training that withstands them."""

__all__: list[str] = []
