"""Learning representations without labels, and probing them."""

__all__: list[str] = []
