"""Losses on pairs of embeddings."""
