"""Experiments that several studies share: data, recipe and trained networks."""
