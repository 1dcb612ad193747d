"""The recorder where people train: one module a framework or tracker, each behind its extra."""
