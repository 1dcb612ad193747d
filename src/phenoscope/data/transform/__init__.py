"""What is done to inputs: moved, recolored, cut, corrupted."""
