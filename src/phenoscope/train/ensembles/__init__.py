"""Networks that predict together."""
