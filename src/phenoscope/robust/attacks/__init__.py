"""Attacks on inputs, and evaluation under them."""
