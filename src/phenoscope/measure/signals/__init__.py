"""How signals and gradients pass through a network."""
