"""Values of an ONNX graph under construction, with the operators of Python.

A handler is a function of values: `x * log(y)` adds a Log and a Mul node. Numbers become constants
of the dtype of the value they meet.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto
from tf2onnx import utils
from tf2onnx.onnx_opset.controlflow import Select

Number: TypeAlias = "Value | float | np.ndarray"
Handler: TypeAlias = tuple[Callable[[Any, Any, str, list[Any]], None], list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """The output of a node.

    Args:
        graph: The tf2onnx graph that holds it.
        name: Its name in the graph.
    """

    graph: Any
    name: str

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype."""
        return np.dtype(utils.ONNX_TO_NUMPY_DTYPE[self.graph.get_dtype(self.name)])

    @property
    def rank(self) -> int:
        """The number of axes; a `ValueError` where the graph does not tell."""
        rank = self.graph.get_rank(self.name)
        if rank is None:
            raise ValueError(f"Expected a tensor of known rank; {self.name!r} has none.")
        return rank

    @property
    def size(self) -> int:
        """The static length of a vector; a `ValueError` where the graph does not tell."""
        shape = self.graph.get_shape(self.name)
        if shape is None or len(shape) != 1 or shape[0] < 0:
            raise ValueError(
                f"Expected a vector of static length; {self.name!r} has shape {shape}."
            )
        return shape[0]

    def constant(self, number: Any, dtype: Any = None) -> "Value":
        """Makes a constant of this value's dtype, unless another is given."""
        array = np.array(number, dtype or self.dtype)
        return self._named(self.graph.make_const(utils.make_name("const"), array).output[0])

    def apply(self, op: str, *inputs: Number, **attributes: Any) -> "Value":
        """Adds a node whose first input is this value; numbers take its dtype."""
        names = [self.name, *(self._lift(value).name for value in inputs)]
        return self._named(self.graph.make_node(op, names, attr=attributes).output[0])

    def cast(self, dtype: Any) -> "Value":
        """Casts the value to another dtype."""
        return self.apply("Cast", to=utils.map_numpy_to_onnx_dtype(np.dtype(dtype)))

    def at(self, index: Number, axis: int) -> "Value":
        """Takes the slice at an index; a scalar index removes the axis."""
        index = index if isinstance(index, Value) else self.constant(index, np.int64)
        return self.apply("Gather", index, axis=axis)

    def expand_dims(self, axis: int) -> "Value":
        """Adds an axis of length one."""
        return self.apply("Unsqueeze", self.constant([axis], np.int64))

    def transpose(self, axes: Sequence[int]) -> "Value":
        """Reorders the axes."""
        return self.apply("Transpose", perm=list(axes))

    def polynomial(self, coefficients: Sequence[float]) -> "Value":
        """Evaluates the polynomial with these coefficients, the constant first."""
        *rest, last = coefficients
        total = self * last + rest.pop() if rest else self * 0.0 + last
        for coefficient in reversed(rest):
            total = total * self + coefficient
        return total

    def _named(self, name: str) -> "Value":
        return Value(self.graph, name)

    def _lift(self, number: Number) -> "Value":
        return number if isinstance(number, Value) else self.constant(number)

    def __neg__(self) -> "Value":
        return self.apply("Neg")

    def __abs__(self) -> "Value":
        return self.apply("Abs")

    def __add__(self, other: Number) -> "Value":
        return self.apply("Add", other)

    def __radd__(self, other: Number) -> "Value":
        return self._lift(other) + self

    def __sub__(self, other: Number) -> "Value":
        return self.apply("Sub", other)

    def __rsub__(self, other: Number) -> "Value":
        return self._lift(other) - self

    def __mul__(self, other: Number) -> "Value":
        return self.apply("Mul", other)

    def __rmul__(self, other: Number) -> "Value":
        return self._lift(other) * self

    def __truediv__(self, other: Number) -> "Value":
        return self.apply("Div", other)

    def __rtruediv__(self, other: Number) -> "Value":
        return self._lift(other) / self

    def __lt__(self, other: Any) -> "Value":
        return self.apply("Less", other)

    def __le__(self, other: Any) -> "Value":
        return self.apply("LessOrEqual", other)

    def __gt__(self, other: Any) -> "Value":
        return self.apply("Greater", other)

    def __ge__(self, other: Any) -> "Value":
        return self.apply("GreaterOrEqual", other)

    def equals(self, other: Number) -> "Value":
        """Compares for equality."""
        return self.apply("Equal", other)

    def __or__(self, other: "Value") -> "Value":
        return self.apply("Or", other)

    def __and__(self, other: "Value") -> "Value":
        return self.apply("And", other)


def where(condition: Value, yes: Number, no: Number) -> Value:
    """Selects `yes` where the condition holds and `no` elsewhere; one of them is a `Value`."""
    kind = yes if isinstance(yes, Value) else no
    if not isinstance(kind, Value):
        raise TypeError(f"Expected a value and a number; got {yes!r} and {no!r}.")
    branches = [value if isinstance(value, Value) else kind.constant(value) for value in (yes, no)]
    return condition.apply("Where", *branches)


def select(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """Converts a selection; of floats, whose NaN and infinity survive tf2onnx's product with 0."""
    if graph.get_dtype(node.output[0]) in (TensorProto.FLOAT, TensorProto.DOUBLE):
        node.type = "Where"
    else:
        Select.version_9(graph, node)


def exp(x: Value) -> Value:
    """Computes the exponential."""
    return x.apply("Exp")


def log(x: Value) -> Value:
    """Computes the natural logarithm."""
    return x.apply("Log")


def sqrt(x: Value) -> Value:
    """Computes the square root."""
    return x.apply("Sqrt")


def floor(x: Value) -> Value:
    """Rounds down to a whole number."""
    return x.apply("Floor")


def handler(function: Callable[..., Value], *attributes: str) -> Handler:
    """Makes an entry of tf2onnx's `custom_op_handlers` from a function of values.

    Half precision is computed in float32. Other dtypes than floats and integers are refused.

    Args:
        function: Takes the inputs of the op, then its attributes by name, and returns its output.
        *attributes: Names of the op's attributes that the function takes.

    Returns:
        The pair that tf2onnx expects: a function of graph, node, name and arguments, and an empty
            list of arguments.
    """

    def convert(graph: Any, node: Any, name: str, _: list[Any]) -> None:
        inputs = [Value(graph, input_name) for input_name in node.input]
        dtypes = [value.dtype for value in inputs]
        if any(dtype.kind not in "fiu" for dtype in dtypes):
            names = ", ".join(dtype.name for dtype in dtypes)
            raise ValueError(f"Expected {node.type} {name!r} on floats or integers; got {names}.")

        wide = [x.cast(np.float32) if x.dtype == np.float16 else x for x in inputs]
        named = {key: node.get_attr_value(key) for key in attributes}
        result = function(*wide, **named)
        if dtypes[0] == np.float16:
            result = result.cast(np.float16)

        shapes, output_dtypes = node.output_shapes, node.output_dtypes
        graph.remove_node(name)
        graph.make_node(
            "Identity",
            [result.name],
            outputs=node.output,
            name=name,
            shapes=shapes,
            dtypes=output_dtypes,
        )

    return convert, []
