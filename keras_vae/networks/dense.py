"""Networks of Dense layers on flattened inputs."""

from collections.abc import Sequence

import keras

__all__ = ["logarithm", "mlp", "rescaled", "with_condition"]


def mlp(
    input_shape: Sequence[int],
    hidden: Sequence[int] = (200, 200),
    *,
    activation: str = "tanh",
    condition_shape: Sequence[int] | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    logarithm: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Builds Dense layers on the flattened input; the features are [B, hidden[-1]].

    Args:
        input_shape: shape of one x or z.
        hidden: width of each layer.
        activation: activation of each layer; "glu" is the gated layer a * sigmoid(b) of two affine
            maps.
        condition_shape: shape of one condition, which is joined to the input.
        offset, scale: the input is first mapped to (x - offset) * scale.
        logarithm: whether it is then mapped to log(1 + x), which suits counts.
        name: name of the model.

    Raises:
        ValueError: if there is no layer.

    Example:
        >>> mlp((8, 8, 1), (32, 16)).output_shape
        (None, 16)
    """
    if not hidden:
        raise ValueError("Expected at least one hidden layer; got none. (network=None is linear.)")
    inputs, features = _flat_inputs(input_shape, condition_shape, offset, scale, logarithm)
    for width in hidden:
        if activation == "glu":
            features = keras.ops.glu(keras.layers.Dense(2 * width)(features))
        else:
            features = keras.layers.Dense(width, activation=activation)(features)
    return keras.Model(inputs, features, name=name)


def logarithm(size: float) -> keras.Model:
    """Builds the map log(1 + x) / size - 1 of numbers [B, 1], which suits counts and amounts.

    Args:
        size: typical log(1 + x), which is mapped to 0.

    Example:
        >>> float(logarithm(2.0)(keras.ops.zeros([1, 1]))[0, 0])
        -1.0
    """
    x = keras.Input((1,))
    return keras.Model(x, keras.ops.log1p(x) / size - 1.0)


def _flat_inputs(
    input_shape: Sequence[int],
    condition_shape: Sequence[int] | None,
    offset: float,
    scale: float,
    logarithm: bool,
) -> tuple[list[keras.KerasTensor] | keras.KerasTensor, keras.KerasTensor]:
    x = keras.Input(tuple(input_shape), name="x")
    features = rescaled(x, offset, scale, logarithm)
    if len(input_shape) > 1:
        features = keras.layers.Flatten()(features)
    return with_condition(x, features, condition_shape)


def with_condition(
    x: keras.KerasTensor, features: keras.KerasTensor, condition_shape: Sequence[int] | None
) -> tuple[list[keras.KerasTensor] | keras.KerasTensor, keras.KerasTensor]:
    """Returns the inputs of a network, and features [B, n] joined to the condition, if any."""
    if condition_shape is None:
        return x, features
    condition = keras.Input(tuple(condition_shape), name="condition")
    flat = condition if len(condition_shape) == 1 else keras.layers.Flatten()(condition)
    return [x, condition], keras.layers.Concatenate()([features, flat])


def rescaled(
    x: keras.KerasTensor, offset: float = 0.0, scale: float = 1.0, logarithm: bool = False
) -> keras.KerasTensor:
    """Maps an input to (x - offset) * scale, and to log(1 + x) of it if asked for.

    Example:
        >>> x = keras.Input([2])
        >>> network = keras.Model(x, rescaled(x, offset=1.0, scale=0.5))
        >>> network(keras.ops.convert_to_tensor([[1.0, 3.0]])).numpy()
        array([[0., 1.]], dtype=float32)
    """
    if offset != 0.0 or scale != 1.0:
        x = keras.layers.Rescaling(scale, offset=-offset * scale)(x)
    return keras.ops.log1p(x) if logarithm else x
