"""Settings of a run about texts and time series."""

from __future__ import annotations

from dataclasses import dataclass

from keras_vae.runs.groups.data import TEXT
from keras_vae.runs.setting import setting

__all__ = ["SEQUENCE_NETWORKS", "SequenceSettings"]

SEQUENCE_NETWORKS = ("recurrent", "convolution", "attention")
"""Networks of sequences."""

_OF_TEXTS = ("likelihood", (TEXT,))
_OF_SEQUENCES = ("network", SEQUENCE_NETWORKS)


@dataclass(frozen=True)
class SequenceSettings:
    """Settings about sequences.

    Attributes:
        text_column: column of a table, or key of each line of a .jsonl file, that holds texts; with
            it the data of a table is these texts.
        tokens: what a text is made of, "characters" or "words".
        vocabulary_size: largest number of different tokens, with those of the end of a text and of
            unknown ones; rarer ones become unknown. 0 is no limit.
        longest: largest number of tokens of a text; 0 takes it from the data when training begins,
            and then stores it.
        id_column: column of a table that says to which time series a row belongs.
        time_column: column by which the steps of a time series are ordered.
        window: steps of the windows that long series are cut into; 0 takes each series whole. The
            last `test_fraction` of the steps of each series is then the test set.
        stride: steps between the starts of two training windows; 0 is `window`, which makes them
            disjoint. Test windows are always disjoint.
        entries: names of the entries of a step, the columns of a table; filled in by training.
        autoregressive: whether each step depends on those before it.
        word_dropout: share of the steps that training hides from those after them.
        seasons: lengths of the seasons of a time series, whose decoder then has a level, a trend
            and these seasons; empty is a decoder of layers alone.
    """

    text_column: str = setting(
        "", "Column of a table or key of a .jsonl file with texts.", only=_OF_TEXTS
    )
    tokens: str = setting(
        "characters",
        "What a text is made of.",
        choices=("characters", "words"),
        only=_OF_TEXTS,
    )
    vocabulary_size: int = setting(
        0, "Most different tokens; rarer ones are unknown.", interval="[0, inf)", only=_OF_TEXTS
    )
    longest: int = setting(
        0, "Most tokens of a text; by default as in the data.", interval="[0, inf)", only=_OF_TEXTS
    )
    id_column: str = setting("", "Column that names the time series of a row.", only=_OF_SEQUENCES)
    time_column: str = setting(
        "", "Column that orders the steps of a time series.", only=_OF_SEQUENCES
    )
    window: int = setting(
        0,
        "Steps of the windows to cut long series into; tests on the last steps.",
        interval="[0, inf)",
        only=_OF_SEQUENCES,
    )
    stride: int = setting(
        0,
        "Steps between the starts of training windows; by default --window.",
        interval="[0, inf)",
        only=("window", None),
    )
    entries: tuple[str, ...] = setting((), is_option=False)
    autoregressive: bool = setting(
        False, "Let each step depend on those before it.", only=_OF_SEQUENCES
    )
    word_dropout: float = setting(
        0.0,
        "Share of the steps that training hides from those after them.",
        interval="[0, 1)",
        only=("autoregressive", None),
    )
    seasons: tuple[int, ...] = setting(
        (),
        "Lengths of the seasons of a time series, as in 12.",
        interval="[2, inf)",
        only=_OF_SEQUENCES,
    )
