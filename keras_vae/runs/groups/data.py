"""Settings of a run about its data and the likelihood of the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_vae.distributions.names import LIKELIHOODS
from keras_vae.runs.setting import Setting, setting

__all__ = ["LABELS", "TABLE", "TEXT", "DataSettings"]

TABLE = "table"
"""Likelihood of a run whose columns each have a likelihood of their own."""

TEXT = "text"
"""Likelihood of a run of texts, whose tokens are categories."""

LABELS = "labels"
"""Condition of a run whose model is given the label of each example."""


@dataclass(frozen=True)
class DataSettings:
    """Settings about the data.

    Attributes:
        data: path or name for `keras_vae.data.load`.
        test_data: path of the test set; empty sets `test_fraction` of the data aside.
        test_fraction: share of the data set aside as test set.
        drop: names of columns of a table to leave out.
        keep_labels: whether a column with a label's name is data like the others.
        condition: "labels" gives the label of each example, one-hot, to encoder and decoder; empty
            leaves labels out.
        image_size: height and width to resize a directory of images to; empty keeps their size.
        image_mode: mode to convert them to, see `keras_vae.data.load`; empty keeps their mode.
        cache: directory in which a table, a sparse matrix or images are kept as rows of a file, for
            data larger than memory; empty reads them into memory.
        likelihood: name as in `keras_vae.mlp_vae`; "table" for a table whose columns each have a
            likelihood of their own; "text" for texts, whose tokens are categories; or "auto":
            chosen from the data when training begins, and then stored by name.
        schema: TOML file of a `keras_vae.data.Schema`, for a table; empty infers it.
        missing: whether any column of the table may have missing values, also those that are
            complete in the data.
        drop_observed: share of the values, in columns that may have missing ones, that training
            hides from the encoder.
        likelihood_options: arguments of the likelihood, such as scale and levels.
        top: largest possible value of an entry; 0 takes it from the data or its dtype.
    """

    data: str = setting(
        "",
        "digits, or .npz, .npy, .csv, .tsv, .parquet, .mtx, .txt, .jsonl, IDX, or a directory.",
    )
    test_data: str = setting("", "Test set; by default a part of the data, or t10k beside train.")
    test_fraction: float = setting(
        0.1, "Part of the data that is the test set.", interval="(0, 1)", only=("test_data", ("",))
    )
    drop: tuple[str, ...] = setting((), "Columns of a table to leave out, as in id,date.")
    keep_labels: bool = setting(
        False, "Model a column named label, labels, y, target or class as the others."
    )
    condition: str = setting(
        "",
        "labels makes a conditional model: encoder and decoder are given the label.",
        choices=("", LABELS),
    )
    image_size: tuple[int, ...] = setting(
        (), "Height and width to bring images to, as in 64,64.", interval="[1, inf)"
    )
    image_mode: str = setting(
        "",
        "Mode to convert images to: L is grey, I;16 grey of 16 bits.",
        choices=("", "1", "L", "RGB", "RGBA", "I;16"),
    )
    cache: str = setting(
        "", "Directory that keeps tables and images larger than memory as rows of a file."
    )
    likelihood: str = setting(
        "auto",
        "p(x|z); table gives each column of a table its own, text is of tokens; auto proposes one.",
        choices=("auto", TABLE, TEXT, *LIKELIHOODS),
    )
    schema: str = setting(
        "",
        "TOML file with the columns of a table, as `keras-vae schema` writes it.",
        only=("likelihood", (TABLE,)),
    )
    missing: bool = setting(
        False, "Any column of the table may have missing values.", only=("likelihood", (TABLE,))
    )
    drop_observed: float = setting(
        0.1,
        "Part of the values that training hides from the encoder where they may be missing.",
        interval="[0, 1)",
        only=("likelihood", (TABLE,)),
    )
    likelihood_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"setting": Setting(is_option=False)}
    )
    top: float = setting(
        0.0,
        "Largest possible value of grey levels, as in 255; by default from the data.",
        interval="[0, inf)",
        only=(
            "likelihood",
            tuple(name for name, family in LIKELIHOODS.items() if family.takes_top),
        ),
    )
