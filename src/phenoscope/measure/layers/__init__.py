"""What single layers are worth to a network."""
