"""Rollout: which version of a model callers get, and what the next one answers."""
