"""What a network looks at, in terms of concepts."""
