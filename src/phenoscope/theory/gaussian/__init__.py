"""Moments of functions of Gaussian variables."""
