"""Corrections to the limit of infinite width."""
