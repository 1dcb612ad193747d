"""How lengths, correlations and gradients pass through random networks, layer by layer."""
