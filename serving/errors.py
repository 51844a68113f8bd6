"""Exceptions raised by `serving`.

ServingError
    InputError               the inputs do not fit the signature: names, an empty batch
        ShapeError
        DtypeError
        ValueRangeError      NaN, infinite, or too large for the type
    MalformedError           a request or a message that cannot be read
    UnknownSignatureError
    UnknownModelError        no such model, version or label
    RefusedError             the server understood the request and refused it
    FailedError              the server failed on the request
    UnavailableError         no answer: server down, overloaded, still loading
        DeadlineError        no answer in time
    ReplyError               an answer that cannot be right
"""

__all__ = [
    "DeadlineError",
    "DtypeError",
    "FailedError",
    "InputError",
    "MalformedError",
    "RefusedError",
    "ReplyError",
    "ServingError",
    "ShapeError",
    "UnavailableError",
    "UnknownModelError",
    "UnknownSignatureError",
    "ValueRangeError",
]


class ServingError(ValueError):
    """A request or an artifact that cannot be used as asked; says why and what to do."""


class InputError(ServingError):
    """Inputs that do not fit the signature."""


class ShapeError(InputError):
    """An input of the wrong shape, or inputs with different numbers of rows."""


class DtypeError(InputError):
    """An input of a type that cannot be converted to the signature's without loss."""


class ValueRangeError(InputError):
    """An input with a number that is not finite, or is out of the range of its type."""


class MalformedError(ServingError):
    """A request that does not follow the protocol."""


class UnknownSignatureError(ServingError):
    """A signature that the model does not have."""


class UnknownModelError(ServingError):
    """A model, version or label that the server does not serve."""


class RefusedError(ServingError):
    """A request that the server refused; the message quotes the server."""


class FailedError(ServingError):
    """A request on which the server failed; the message quotes the server."""


class UnavailableError(ServingError):
    """A server that gave no answer: down, overloaded or still loading. It may answer later."""


class DeadlineError(UnavailableError):
    """A server that gave no answer in time."""


class ReplyError(ServingError):
    """An answer that cannot be right: cut off, malformed, with missing rows or infinite numbers."""
