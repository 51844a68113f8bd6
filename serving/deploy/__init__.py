"""Deployment: all files that TensorFlow Serving runs with, written from the artifacts."""
