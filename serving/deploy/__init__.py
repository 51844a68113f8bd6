"""Deployment: everything that TensorFlow Serving is run with, written from the artifacts."""
