"""Rows of discrete latents for which rounding decides between two codes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np

from export.cases import Case, Tensors
from export.errors import ExportError
from export.parity import tolerances
from export.parity.pairs import Pair
from keras_vae.spelling import counted

__all__ = ["OtherCodes"]


class OtherCodes:
    """Leaves out the rows for which a runtime chose other codes, and counts them by signature.

    Two codes may be equally near to the features of a row, up to rounding. All numbers of such a
    row are then others, in another runtime. Only so many rows may be like that.

    Args:
        about: description of the model in the manifest.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about
        self._rows: dict[str, int] = defaultdict(int)
        self._others: dict[str, int] = defaultdict(int)
        self._share: dict[str, float] = defaultdict(float)

    def left_out(self, case: Case, want: Tensors, got: Tensors) -> tuple[Case, Tensors, Tensors]:
        """Returns a case and its answers without the rows of other codes."""
        if case.size == 0 or not tolerances.chooses_codes(case.signature, self._about):
            return case, want, got
        names = ["codes"] if "codes" in case.outputs else case.outputs
        is_other = np.zeros(case.size, bool)
        for name in names:
            excess = Pair(case, name, want, got[name], self._about).excess > 1.0
            is_other |= excess.reshape(case.size, -1).any(axis=1)
        self._rows[case.signature] += case.size
        self._others[case.signature] += int(is_other.sum())
        share = case.sensitivity.get("codes chosen", 0.0)
        self._share[case.signature] = max(self._share[case.signature], share)
        if not is_other.any():
            return case, want, got
        inputs, want, got = (
            {name: value[~is_other] for name, value in each.items()}
            for each in (case.inputs, want, got)
        )
        return dataclasses.replace(case, inputs=inputs), want, got

    def refuse(self, runtime: str) -> None:
        """Refuses more rows of other codes than rounding explains.

        Raises:
            ExportError: naming the signature and the numbers of rows.
        """
        for signature, others in self._others.items():
            rows = self._rows[signature]
            most = tolerances.other_codes(rows, self._about, self._share[signature])
            if others > most:
                raise ExportError(
                    f"{runtime} disagrees with the model: {signature} chooses other codes in "
                    f"{others} of {counted(rows, 'row')}, and rounding explains {most}. A layer "
                    "is computed differently there. Export the model without layers of your own "
                    "to find it, and replace it."
                )
