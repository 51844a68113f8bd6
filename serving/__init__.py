"""Serving: what uses an artifact. Knows the artifact on disk, and nothing of how it was made."""
