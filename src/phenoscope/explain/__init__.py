"""What a network looks at: attributions, concepts, and scores of them."""

__all__: list[str] = []
