"""Table of the signatures of a model: their inputs, outputs and descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae.conformal import Conformal
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.signatures.functions import Functions
from keras_vae.signatures.layout import Tensors
from keras_vae.signatures.raw_part import Preparations, raw_parts

__all__ = ["Signature", "signatures"]


class Signature(NamedTuple):
    """One exported function.

    Attributes:
        name: decode, encode, sample, reconstruct or score; where entries may be absent impute and
            classify; and sample_given where a latent is a part of the data.
        function: map of keyword tensors to a dict of tensors, both with the batch as axis 0.
        inputs: specification of each input, by name.
        outputs: names of the outputs.
        description: one sentence for the reader of the artifact.
    """

    name: str
    function: Callable[..., Tensors]
    inputs: dict[str, tf.TensorSpec]
    outputs: tuple[str, ...]
    description: str


def signatures(
    vae: LatentVariableModel,
    preparation: Preparations = None,
    num_samples: int = 0,
    calibration: Conformal | None = None,
) -> dict[str, Signature]:
    """Returns the signatures of a model, `decode` first.

    | name | inputs | outputs |
    |---|---|---|
    | decode | z [b, L] | mean, and the likelihood's parameters |
    | encode | x | the posterior's parameters |
    | sample | seed int32 [b, 2] | sample, mean, z |
    | reconstruct | x | mean |
    | score | x, seed int32 [b, 2] | elbo, distortion, rate, each [b], nats |

    A conditional model takes `condition` beside z, x or seed. `x`, `mean` and `sample` are in the
    units of the data file; the parameters are those of the prepared data. Data that the training
    binarised is used as the probability of a one by `encode` and `reconstruct`, and drawn from
    the row's seed by `score`, like dequantisation noise; `score` is a bound on the log-probability
    of x as the file holds it (for binarised data: of the draw). All numbers except seeds and
    codes are float32, whatever dtype the model computes in. Texts are numbers of tokens; what
    follows the end of a text is not read, and draws repeat the end there.

    A model whose latents are codes takes `codes`, int32, in place of z in `decode`. Its `encode`
    returns `codes` and their embeddings z, and its `sample` returns `codes` beside z.

    A model with named parts takes x_NAME for each and returns mean_NAME, sample_NAME, the
    parameters as PARAMETER_NAME and distortion_NAME; one category is a code, [b, 1], and its mean
    holds the probabilities of all. In NAME, characters other than letters, digits and _ are
    replaced (`keras_vae.integrity.as_word`). NaN is absent where the part has `missing=True`, and
    `score` is then a bound on the log-probability of what is present.

    Data that the file could not hold gives NaN in its row of all outputs, and -1 in codes: NaN
    elsewhere, a number outside the range of its part or a fraction where all are whole, a code that
    no category has, and infinity. So do conditions that are not finite.

    With `num_samples` draws, a model whose data may be absent has two more, for which the draws are
    weighted as `vae.impute` and `vae.classify` do with the same seed and number of draws:

    | name | inputs | outputs |
    |---|---|---|
    | impute | x_NAME, seed | value_NAME, mean_NAME, sample_NAME of what may be absent; ess [b] |
    | classify | x_NAME, seed | probabilities_NAME [b, K], ess_NAME [b] of parts with classes |

    A model with a classifier network, as `SemiSupervisedVAE`, answers `classify` by it: without
    draws, so without seed and ess_NAME. Its `score` sums the label out where it is absent, and it
    has one more:

    | name | inputs | outputs |
    |---|---|---|
    | sample_given | x_label, seed | as of sample, with the label that is given; NaN draws it |

    `value` is the single imputation, which the file could hold, `mean` is E[x | present], and
    `sample` is one draw from p(absent | present); what is present stays as given. `classify` does
    not read the part itself. `ess` is the effective sample size, from 1 to the number of draws.

    Args:
        vae: the model; its weights are captured.
        preparation: how the training prepared its data, or a dict of that by part; None if it did
            not, or as the model's schema says.
        num_samples: draws for `impute` and `classify`; 0 leaves these out.
        calibration: calibration with the scores -elbo of held-out normal examples, for the output
            `p_value` [b] of `score`; None leaves it out.

    Raises:
        ValueError: if two tensors would have one name, or a preparation is for no part.
    """
    functions = Functions(vae, raw_parts(vae, preparation), num_samples, calibration)
    inputs = _specs(functions.shapes)
    if functions.codes is not None:
        shape = [None, *functions.codes.codes_shape]
        inputs["latents"] = {"codes": tf.TensorSpec(shape, tf.int32, "codes")}
    seed = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}
    data = {**inputs["observed"], **inputs["given"]}
    condition = {name: spec for name, spec in inputs["given"].items() if name == "condition"}
    table = [
        Signature(
            "decode",
            _answered(functions.decode, functions),
            {**inputs["latents"], **condition},
            functions.decoded,
            "Distribution p(x | z) of the latents z: its mean and its parameters."
            if functions.codes is None
            else "Distribution p(x | codes): its mean and its parameters.",
        ),
        Signature(
            "encode",
            _answered(functions.encode, functions),
            data,
            functions.encoded,
            _described_encode(vae, functions),
        ),
        Signature(
            "sample",
            _answered(functions.sample, functions),
            {**seed, **condition},
            functions.sampled,
            "A draw from p(x) for each seed pair, the mean at its z, and z.",
        ),
        Signature(
            "reconstruct",
            _answered(functions.reconstruct, functions),
            data,
            functions.means,
            "Mean of p(x | z) at the mean of q(z | x).",
        ),
        Signature(
            "score",
            _answered(functions.score, functions),
            {**inputs["observed"], **seed, **inputs["given"]},
            functions.scored,
            "Lower bound on log p(x) in nats from one draw of z, and its two terms"
            + ("." if calibration is None else "; conformal p-value of x, small if x is unusual."),
        ),
    ]
    if functions.absent:
        table.append(
            Signature(
                "impute",
                _answered(functions.impute, functions),
                {**inputs["observed"], **seed, **inputs["given"]},
                functions.imputed,
                f"What is absent given what is present, from {num_samples} weighted draws of z.",
            )
        )
    if functions.classified or functions.recognised:
        own = {part.tensor("x") for part in functions.recognised}
        others = {name: spec for name, spec in inputs["observed"].items() if name not in own}
        drawn = {**inputs["observed"], **seed} if functions.classified else others
        by = f", from {num_samples} weighted draws of z" if functions.classified else ""
        table.append(
            Signature(
                "classify",
                _answered(functions.classify, functions),
                {**drawn, **inputs["given"]},
                functions.probabilities,
                f"Probability of each class of a part given all other parts{by}.",
            )
        )
    if functions.given:
        names = {part.tensor("x") for part in functions.given}
        given = {name: spec for name, spec in inputs["observed"].items() if name in names}
        table.append(
            Signature(
                "sample_given",
                _answered(functions.sample_given, functions),
                {**given, **seed},
                functions.sampled,
                f"A draw from p(x | {', '.join(p.name for p in functions.given)}) for each seed "
                "pair; what is NaN is drawn too.",
            )
        )
    for signature in table:
        _refuse_twice(signature.outputs, f"outputs of {signature.name}")
    return {signature.name: signature for signature in table}


def _described_encode(vae: LatentVariableModel, functions: Functions) -> str:
    if functions.codes is not None:
        return "Most probable codes of the data x, and their embeddings z."
    if isinstance(vae, VAE):
        return "Distribution q(z | x) of the data x: its parameters."
    return "Latents at the centre of q(z | x), and the scales of those that are normal."


def _specs(
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> dict[str, dict[str, tf.TensorSpec]]:
    """Returns the specifications of float32 inputs by kind and name.

    Raises:
        ValueError: if two of them, or one and the seed, have the same name.
    """
    names = [name for kind in shapes.values() for name in kind]
    _refuse_twice([*names, "seed"], "inputs of the signatures")
    return {
        kind: {
            name: tf.TensorSpec([None, *shape], tf.float32, name) for name, shape in named.items()
        }
        for kind, named in shapes.items()
    }


def _refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuses names of which two are equal, for one of the tensors would be lost.

    Raises:
        ValueError: naming the first of them.
    """
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise ValueError(
            f"Two {what} are called {twice[0]!r}. Rename the parameter, the latent or the part of "
            "the data that takes this name."
        )


def _answered(function: Callable[..., Tensors], functions: Functions) -> Callable[..., Tensors]:
    """Makes a function that answers in float32, or in int32 if these are codes.

    Rows of inputs that are not possible are NaN in the answer, and -1 in codes.
    """

    def answer(**inputs: tf.Tensor) -> Tensors:
        inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        possible = functions.possible(inputs)
        found = {}
        for name, value in function(**inputs).items():
            is_code = value.dtype == tf.int32
            value = value if is_code else tf.cast(value, tf.float32)
            found[name] = _where(possible, value, -1 if is_code else np.nan)
        return found

    return answer


def _where(kept: tf.Tensor | None, value: tf.Tensor, other: float) -> tf.Tensor:
    """Returns a value [b, ...] whose other rows than those that are kept, [b], hold a number."""
    if kept is None:
        return value
    for _ in range(1, value.shape.rank):
        kept = tf.expand_dims(kept, -1)
    return tf.where(kept, value, other)
