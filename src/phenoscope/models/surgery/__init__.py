"""What is done to the structure of a network."""
