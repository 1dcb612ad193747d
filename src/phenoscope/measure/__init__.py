"""Numbers about a network, or about networks trained side by side."""

__all__: list[str] = []
