"""Small helpers that every package above needs; no public face of its own."""
