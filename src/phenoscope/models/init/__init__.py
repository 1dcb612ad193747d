"""First values of a network's weights."""
