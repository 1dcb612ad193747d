"""Numbers about an attribution."""
