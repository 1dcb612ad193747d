"""Checkpoints that other programs saved: find them, read them, order them, and say which weights are layers."""
