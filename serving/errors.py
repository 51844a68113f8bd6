"""What all of serving raises when it is asked for what cannot be."""

__all__ = ["ServingError"]


class ServingError(ValueError):
    """A request or an artifact that cannot be used as asked; says why and what to do."""
