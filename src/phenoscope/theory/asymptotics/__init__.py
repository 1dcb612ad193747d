"""What happens when samples, parameters and dimensions all grow, at fixed ratios."""
