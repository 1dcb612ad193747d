"""What a layer knows about the input and the label."""
