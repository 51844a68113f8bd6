"""The one exception of the pipeline."""

__all__ = ["ExportError"]


class ExportError(ValueError):
    """An export that was refused; the target directory is as it was."""
