"""How far training stays from its linearization."""
