"""Exports a hundred models over families, layers, sizes and dtypes, and lists the refusals.

    python benchmarks/export_models.py                     all that have no result yet
    python benchmarks/export_models.py --only lstm         those whose name holds a word
    python benchmarks/export_models.py --limit 10          at most so many
    python benchmarks/export_models.py --fresh             forget the results first

Each model is made with untrained weights moved off their start, exported by the whole pipeline into
a directory that is thrown away, and gets one line: published, or refused and why. Results are kept
in `benchmarks/results/export_models.jsonl`, so that the next call goes on after the last model.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from export.errors import ExportError
from export.pipeline import export_model

RESULTS = Path(__file__).parent / "results" / "export_models.jsonl"
L = keras.layers
Make = Callable[[], keras_vae.VAE]
MODELS: dict[str, Make] = {}
REFUSED: set[str] = set()
"""Models that the export must refuse."""


def model(make: Make) -> Make:
    """Enters a function that makes a model under its name."""
    MODELS[make.__name__.replace("_", " ").strip()] = make
    return make


def refused(make: Make) -> Make:
    """Enters a function whose model has to be refused."""
    REFUSED.add(make.__name__.replace("_", " ").strip())
    return model(make)


# Families and sizes


def families() -> None:
    """Every likelihood on columns, pixels and convolutions; every prior and posterior."""
    options: dict[str, dict[str, Any]] = {
        "bernoulli": {},
        "continuous_bernoulli": {},
        "normal": {},
        "laplace": {"scale": "per_feature"},
        "discretized_logistic": {},
        "binomial": {"total_count": 255},
        "poisson": {},
    }
    for name, option in options.items():
        MODELS[f"{name}, 20 columns"] = lambda n=name, o=option: keras_vae.mlp_vae(20, 4, n, **o)
        MODELS[f"{name}, 784 pixels, dense"] = lambda n=name, o=option: keras_vae.mlp_vae(
            (28, 28, 1), 16, n, **o
        )
        MODELS[f"{name}, 784 pixels, convolutions"] = lambda n=name, o=option: keras_vae.conv_vae(
            (28, 28, 1), 16, n, **o
        )
    MODELS["categorical, 20 variables"] = lambda: keras_vae.mlp_vae((20, 5), 4, "categorical")
    MODELS["categorical, text 64 x 100"] = lambda: keras_vae.mlp_vae((64, 100), 8, "categorical")
    for scale in (0.3, "learned", "per_feature", "decoder", "optimal"):
        for name in ("normal", "laplace"):
            MODELS[f"{name}, scale {scale}"] = lambda n=name, s=scale: keras_vae.mlp_vae(
                20, 4, n, scale=s
            )
    for prior in ("standard_normal", "normal_mixture", "vamp"):
        for posterior in ("diagonal", "isotropic", "full"):
            more = {} if prior == "standard_normal" else {"num_components": 50}
            MODELS[f"{prior}, {posterior}, 32 latents"] = lambda p=prior, q=posterior, m=more: (
                keras_vae.mlp_vae(64, 32, posterior=q, prior=p, **m)
            )
    for filters in ((32, 64, 128), (16, 16)):
        MODELS[f"normal, 64x64x3, convolutions {filters}"] = lambda f=filters: keras_vae.conv_vae(
            (64, 64, 3), 32, "normal", filters=f, scale="learned"
        )
    MODELS["dense 4000-2500"] = lambda: keras_vae.mlp_vae((28, 28, 1), 50, hidden=(4000, 2500))
    MODELS["label condition"] = lambda: keras_vae.mlp_vae((28, 28, 1), 8, condition_shape=10)
    MODELS["image condition"] = lambda: keras_vae.mlp_vae((8, 8, 1), 8, condition_shape=(8, 8, 1))


@model
def _discretized_logistic_on_64x64x3() -> keras_vae.VAE:
    return keras_vae.conv_vae((64, 64, 3), 16, "discretized_logistic", filters=(32, 16))


@model
def _poisson_rates_of_e_to_11() -> keras_vae.VAE:
    vae = keras_vae.mlp_vae(10, 3, "poisson", hidden=(16,))
    vae.likelihood.head.bias.assign(vae.likelihood.head.bias + 11.0)
    return vae


@model
def _logits_of_1e4() -> keras_vae.VAE:
    vae = keras_vae.mlp_vae(10, 3, hidden=(16,))
    vae.likelihood.head.kernel.assign(vae.likelihood.head.kernel * 1e4)
    return vae


# Layers


def images(*layers: keras.layers.Layer, shape: tuple[int, ...] = (8, 8, 3)) -> keras_vae.VAE:
    """A model of images whose encoder holds the layers."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(4),
        likelihood=keras_vae.Bernoulli(shape, network=L.Dense(32, "relu")),
        posterior=keras_vae.DiagonalNormal(4, network=keras.Sequential([*layers])),
    )


def columns(*layers: keras.layers.Layer) -> keras_vae.VAE:
    """A model of 20 columns whose encoder holds the layers."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(4),
        likelihood=keras_vae.Normal(20, network=L.Dense(32, "relu"), scale="learned"),
        posterior=keras_vae.DiagonalNormal(4, network=keras.Sequential([*layers])),
    )


def series(encoder: list[Any], decoder: list[Any]) -> keras_vae.VAE:
    """A model of series [20, 2]."""
    network = keras.Sequential([L.RepeatVector(20), *decoder])
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal((20, 2), network=network, head=L.Dense(2)),
        posterior=keras_vae.DiagonalNormal(2, network=keras.Sequential(encoder)),
    )


def layers() -> None:
    """One model for each layer or pair of layers that does not need a function of its own."""
    convolution = lambda **k: L.Conv2D(8, 3, padding="same", **k)  # noqa: E731
    encoders: dict[str, Callable[[], list[Any]]] = {
        "batch normalization": lambda: [convolution(), L.BatchNormalization(), L.Flatten()],
        "layer normalization": lambda: [convolution(), L.LayerNormalization(), L.Flatten()],
        "group normalization, gelu": lambda: [
            convolution(),
            L.GroupNormalization(4),
            L.Activation("gelu"),
            L.Flatten(),
        ],
        "unit normalization": lambda: [L.Flatten(), L.Dense(8), L.UnitNormalization()],
        "rms normalization": lambda: [L.Flatten(), L.Dense(8), L.RMSNormalization()],
        "spectral normalization": lambda: [L.Flatten(), L.SpectralNormalization(L.Dense(8))],
        "max pooling": lambda: [convolution(), L.MaxPooling2D(), L.Flatten()],
        "average pooling": lambda: [convolution(), L.AveragePooling2D(2), L.Flatten()],
        "global pooling": lambda: [convolution(), L.GlobalAveragePooling2D()],
        "adaptive pooling": lambda: [convolution(), L.GlobalMaxPooling2D()],
        "resizing, bilinear": lambda: [L.Resizing(10, 10), convolution(), L.Flatten()],
        "up-sampling, nearest": lambda: [L.UpSampling2D(), convolution(), L.Flatten()],
        "up-sampling, bilinear": lambda: [
            L.UpSampling2D(interpolation="bilinear"),
            convolution(),
            L.Flatten(),
        ],
        "up-sampling, bicubic": lambda: [
            L.UpSampling2D(interpolation="bicubic"),
            convolution(),
            L.Flatten(),
        ],
        "separable convolution": lambda: [L.SeparableConv2D(8, 3), L.PReLU(), L.Flatten()],
        "depthwise convolution": lambda: [L.DepthwiseConv2D(3), L.Flatten()],
        "dilated convolution": lambda: [convolution(dilation_rate=2), L.Flatten()],
        "grouped convolution": lambda: [convolution(), convolution(groups=2), L.Flatten()],
        "padding and cropping": lambda: [L.ZeroPadding2D(), L.Cropping2D(2), L.Flatten()],
        "attention": lambda: [L.Reshape((64, 3)), Attention(), L.Flatten()],
        "self attention": lambda: [L.Reshape((64, 3)), L.Dense(8), SelfAttention(), L.Flatten()],
        "augmentation": lambda: [L.RandomFlip(), L.RandomRotation(0.1), convolution(), L.Flatten()],
        "dropout, noise": lambda: [L.Dropout(0.5), L.GaussianNoise(0.1), L.Flatten()],
        "3-d convolution": lambda: [L.Reshape((4, 4, 4, 3)), L.Conv3D(4, 3), L.Flatten()],
        "permute": lambda: [L.Permute((3, 1, 2)), L.Flatten()],
        "rescaling": lambda: [L.Rescaling(2.0, -1.0), L.Flatten()],
    }
    for name, make in encoders.items():
        MODELS[f"layer: {name}"] = lambda m=make: images(*m())
    for name in ("elu", "selu", "silu", "mish", "softsign", "hard_sigmoid", "leaky_relu", "relu6"):
        MODELS[f"activation {name}"] = lambda n=name: columns(L.Dense(16, n))
    for name in (
        "softmax",
        "log_softmax",
        "exponential",
        "celu",
        "squareplus",
        "tanh_shrink",
    ):
        MODELS[f"activation {name}"] = lambda n=name: columns(L.Dense(16), L.Activation(n))
    recurrent: dict[str, Callable[..., Any]] = {
        "LSTM": L.LSTM,
        "GRU": L.GRU,
        "SimpleRNN": L.SimpleRNN,
        "bidirectional LSTM": lambda n, **k: L.Bidirectional(L.LSTM(n, **k)),
        "bidirectional GRU": lambda n, **k: L.Bidirectional(L.GRU(n, **k)),
        "unrolled GRU": lambda n, **k: L.GRU(n, unroll=True, **k),
        "LSTM backwards": lambda n, **k: L.LSTM(n, go_backwards=True, **k),
        "GRU, reset before": lambda n, **k: L.GRU(n, reset_after=False, **k),
        "stacked cells": lambda n, **k: L.RNN([L.LSTMCell(n), L.GRUCell(n)], **k),
    }
    for name, layer in recurrent.items():
        MODELS[f"layer: {name}"] = lambda r=layer: series([r(8)], [r(8, return_sequences=True)])
    MODELS["layer: time-distributed"] = lambda: series(
        [L.TimeDistributed(L.Dense(4)), L.Flatten()], [L.TimeDistributed(L.Dense(4))]
    )
    MODELS["layer: 1-d convolution"] = lambda: series(
        [L.Conv1D(8, 3), L.Flatten()], [L.Conv1DTranspose(8, 3, padding="same")]
    )
    MODELS["layer: attention of series"] = lambda: series(
        [SelfAttention(), L.Flatten()], [SelfAttention()]
    )


@keras.saving.register_keras_serializable("benchmarks")
class SelfAttention(L.Layer):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = L.MultiHeadAttention(2, 4)

    def build(self, shape: Any) -> None:
        """Builds the attention."""
        self.attention.build(shape, shape)

    def call(self, x: Any) -> Any:
        """Attends."""
        return self.attention(x, x)


@keras.saving.register_keras_serializable("benchmarks")
class Attention(L.Layer):
    """Dot-product attention of a sequence to itself."""

    def call(self, x: Any) -> Any:
        """Attends."""
        return L.Attention()([x, x])


@model
def _normalization_given() -> keras_vae.VAE:
    return columns(L.Normalization(mean=[1.0] * 20, variance=[4.0] * 20), L.Dense(8))


@model
def _normalization_adapted() -> keras_vae.VAE:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(100, 20)))
    return columns(layer, L.Dense(8))


@model
def _category_encoding() -> keras_vae.VAE:
    """Counts of tokens."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(
            2, network=keras.Sequential([L.CategoryEncoding(2, output_mode="count"), L.Dense(4)])
        ),
    )


@model
def _embedding() -> keras_vae.VAE:
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Poisson(12),
        posterior=keras_vae.DiagonalNormal(
            2, network=keras.Sequential([L.Embedding(50, 4), L.Flatten(), L.Dense(8)])
        ),
    )


@model
def _convolutional_lstm() -> keras_vae.VAE:
    encoder = [L.Reshape((4, 8, 8, 1)), L.ConvLSTM2D(4, 3), L.Flatten()]
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli((4, 8, 8), network=L.Dense(16)),
        posterior=keras_vae.DiagonalNormal(2, network=keras.Sequential(encoder)),
    )


@model
def _mobilenet_v2() -> keras_vae.VAE:
    return backbone(keras.applications.MobileNetV2)


@model
def _efficientnet_b0() -> keras_vae.VAE:
    return backbone(keras.applications.EfficientNetB0)


@model
def _resnet_50() -> keras_vae.VAE:
    return backbone(keras.applications.ResNet50V2)


def backbone(make: Callable[..., keras.Model]) -> keras_vae.VAE:
    """A model of 32 x 32 images with a network of `keras.applications` as encoder."""
    network = make(input_shape=(32, 32, 3), weights=None, include_top=False, pooling="avg")
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(8),
        likelihood=keras_vae.Bernoulli((32, 32, 3), network=L.Dense(32, "relu")),
        posterior=keras_vae.DiagonalNormal(8, network=network),
    )


@model
def _residual_network() -> keras_vae.VAE:
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(16, 3, padding="same")(inputs)
    for _ in range(3):
        y = L.Conv2D(16, 3, padding="same", activation="relu")(L.BatchNormalization()(x))
        x = L.Add()([x, L.Conv2D(16, 3, padding="same")(y)])
    return images(keras.Model(inputs, L.Flatten()(x)), shape=(16, 16, 3))


@model
def _shared_layer() -> keras_vae.VAE:
    dense = L.Dense(20, "tanh")
    return columns(dense, dense)


@model
def _unicode_names() -> keras_vae.VAE:
    return columns(L.Dense(8, name="entrée"), L.Dense(8, name="層"))


@model
def _own_layer() -> keras_vae.VAE:
    return columns(L.Dense(8), Own())


@keras.saving.register_keras_serializable("benchmarks")
class Own(L.Layer):
    """A layer of TensorFlow ops: an einsum, erf and a sum that keeps its axis."""

    def build(self, shape: Any) -> None:
        """Makes the kernel."""
        self.kernel = self.add_weight(shape=(shape[-1], 8))

    def call(self, x: Any) -> Any:
        """Maps features."""
        x = tf.einsum("bi,ij->bj", x, tf.convert_to_tensor(self.kernel))
        return tf.nn.relu(x) + tf.math.erf(tf.reduce_sum(x, -1, keepdims=True))


@keras.saving.register_keras_serializable("benchmarks")
class Exponential(keras_vae.Likelihood):
    """Positive numbers: p(x) = rate exp(-rate x), a likelihood of a user's own."""

    @property
    def support(self) -> Any:
        """Numbers of at least 0, as those of counts are."""
        return keras_vae.Poisson(1).support

    def parameter_specs(self) -> dict[str, Any]:
        """A rate per entry."""
        from keras_vae.distributions.base import Parameter, positive

        return {"rate": Parameter(self.channels, positive)}

    def make_distribution(self, rate: Any) -> Any:
        """Independent exponential distributions."""
        from keras_vae.distributions.tfp import tfd

        return self.independent(tfd.Exponential(rate))

    def draw(self, noise: Any, rate: Any) -> Any:
        """Draws by inversion."""
        return keras_vae.distributions.Draw(-tf.math.log1p(-noise) / rate)


@model
def _own_likelihood() -> keras_vae.VAE:
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=Exponential(6, network=L.Dense(8, "relu")),
        posterior=keras_vae.DiagonalNormal(2, network=L.Dense(8, "relu")),
    )


# Dtypes


@contextmanager
def policy(name: str) -> Iterator[None]:
    """A block in which Keras makes layers of another dtype policy."""
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(kept)


def dtypes() -> None:
    """Dense and convolutional models under every dtype policy."""
    makes: dict[str, Make] = {
        "dense": lambda: keras_vae.mlp_vae((8, 8, 1), 8, hidden=(64,)),
        "convolutions": lambda: keras_vae.conv_vae((16, 16, 1), 8, "normal", filters=(8, 16)),
        "LSTM": lambda: series([L.LSTM(8)], [L.LSTM(8, return_sequences=True)]),
    }
    for name in ("mixed_float16", "float16", "mixed_bfloat16", "bfloat16", "float64"):
        for what, make in makes.items():
            if (name, what) == ("bfloat16", "LSTM"):
                continue  # Keras has no orthogonal matrices of bfloat16

            def under(name: str = name, make: Make = make) -> keras_vae.VAE:
                with policy(name):
                    return make()

            MODELS[f"{name}, {what}"] = under


# What has to be refused


@keras.saving.register_keras_serializable("benchmarks")
class Function(L.Layer):
    """A layer of one function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        """Calls the function."""
        return self.function(x)


@refused
def _rows_minus_their_mean() -> keras_vae.VAE:
    return columns(L.Dense(8), Function(lambda x: x - tf.reduce_mean(x, axis=0)))


@refused
def _noise_in_a_layer() -> keras_vae.VAE:
    return columns(L.Dense(8), Function(lambda x: x + tf.random.normal(tf.shape(x))))


@refused
def _python_in_a_layer() -> keras_vae.VAE:
    def function(x: Any) -> Any:
        return tf.ensure_shape(tf.py_function(tf.abs, [x], x.dtype), x.shape)

    return columns(L.Dense(8), Function(function))


@refused
def _weights_that_are_nan() -> keras_vae.VAE:
    vae = columns(L.Dense(8))
    vae.posterior.head.bias.assign(vae.posterior.head.bias + np.nan)
    return vae


@refused
def _lambda_layer() -> keras_vae.VAE:
    return columns(L.Dense(8), L.Lambda(lambda x: x + 1.0))


@refused
def _fourier_transform() -> keras_vae.VAE:
    return columns(
        L.Dense(8),
        Function(lambda x: tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))),
    )


def moved(vae: keras_vae.VAE) -> keras_vae.VAE:
    """The model with its weights moved: biases are not 0 and statistics not 0 and 1."""
    generator = np.random.default_rng(0)
    for weight in vae.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            value = keras.ops.convert_to_numpy(weight).astype("float32")
            offset = 0.1 * generator.random(value.shape) if value.ndim == 1 else 0.0
            weight.assign(value * (1.0 + 0.1 * generator.random(value.shape)) + offset)
    return vae


def exported(name: str) -> dict[str, Any]:
    """Exports one model; returns the seconds it took, and the reason if it was refused."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    start = time.perf_counter()
    reason = None
    with tempfile.TemporaryDirectory() as directory:
        try:
            vae = MODELS[name]()
            export_model(vae if name in REFUSED else moved(vae), Path(directory) / "model")
        except ExportError as error:
            reason = str(error)
        except Exception as error:
            reason = f"UNEXPECTED {type(error).__name__}: {' '.join(str(error).split())}"
    seconds = round(time.perf_counter() - start, 1)
    return {"model": name, "published": reason is None, "seconds": seconds, "reason": reason}


def line(result: dict[str, Any]) -> str:
    """One result for the terminal."""
    as_meant = result["published"] != (result["model"] in REFUSED)
    what = "published" if result["published"] else f"refused: {result['reason']}"
    return f"{'ok ' if as_meant else 'BAD'} {result['seconds']:6.1f} s  {result['model']}: {what}"


def main() -> None:
    """Exports models that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="words; names hold one of them")
    parser.add_argument("--limit", type=int, default=10**6, help="at most so many")
    parser.add_argument("--fresh", action="store_true", help="forget the results first")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args()
    families(), layers(), dtypes()
    words = [word.lower() for word in options.only]
    chosen = [name for name in MODELS if any(word in name.lower() for word in words)]
    if options.list:
        print("\n".join(chosen))
        return
    if options.fresh:
        RESULTS.unlink(missing_ok=True)
    known = {}
    if RESULTS.exists():
        entries = map(json.loads, RESULTS.read_text().splitlines())
        known = {entry["model"]: entry for entry in entries}
    for name in [name for name in chosen if name not in known][: options.limit]:
        known[name] = exported(name)
        print(line(known[name]), flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(known[name]) + "\n")
    done = [known[name] for name in chosen if name in known]
    bad = [entry for entry in done if entry["published"] == (entry["model"] in REFUSED)]
    print(f"{len(done)} of {len(chosen)} models: {len(done) - len(bad)} as they have to be")
    for entry in bad:
        print(line(entry))


if __name__ == "__main__":
    main()
