"""What weights say about a network, without data."""
