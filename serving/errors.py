"""What all of serving raises when it is asked for what cannot be.

ServingError
InputError               the inputs are not those of the signature: names, an empty batch
ShapeError
DtypeError
ValueRangeError      NaN, infinite, or too large for the type
MalformedError           a request or a message that cannot be read
UnknownSignatureError
UnknownModelError        no such model, version or label
RefusedError             the server understood the request and refused it
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
    """Inputs that are not those of the signature."""


class ShapeError(InputError):
    """An input of another shape, or inputs with different numbers of rows."""


class DtypeError(InputError):
    """An input of a type that cannot become the signature's without loss."""


class ValueRangeError(InputError):
    """An input with a number that is not finite, or out of the range of its type."""


class MalformedError(ServingError):
    """A request that is not in the form of the protocol."""


class UnknownSignatureError(ServingError):
    """A signature that the model does not have."""


class UnknownModelError(ServingError):
    """A model, version or label that the server does not serve."""


class RefusedError(ServingError):
    """A request that the server refused; holds the server's words."""


class FailedError(ServingError):
    """A request on which the server failed; holds the server's words."""


class UnavailableError(ServingError):
    """A server that gave no answer: down, overloaded or still loading. It may answer later."""


class DeadlineError(UnavailableError):
    """A server that gave no answer in time."""


class ReplyError(ServingError):
    """An answer that cannot be right: cut off, not of the protocol, other rows, not finite."""
