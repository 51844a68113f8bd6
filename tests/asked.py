"""A model asked all cases in this process, as `export` asks it, without files."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export import gates, loading, manifest, onnx_graphs, saved_model
from export.cases import Case
from export.parity import live
from keras_vae.integrity import observations
from keras_vae.model import VAE
from keras_vae.random import philox
from keras_vae.signatures import signatures


@contextlib.contextmanager
def four_rounds() -> Iterator[None]:
    """Traces noise with four of the ten rounds of Philox, which are a third of a small graph.

    Whether two runtimes agree on a round does not depend on how many there are. All ten are
    exported in test_random.py and by the tests of whole pipelines. Only trace in here: a graph that
    an eager draw leaves behind would be used by other tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(philox, "_ROUNDS", 4)
        yield


@dataclass
class Asked:
    """The signatures of a model, what they were asked and what they answered."""

    vae: VAE
    table: dict
    functions: dict
    about: dict
    cases: list[Case]
    expected: list

    @property
    def parity(self):
        """Arguments of `parity.compare` before the answers."""
        return self.cases, self.expected

    @functools.cached_property
    def sessions(self):
        """ONNX files of the signatures, loaded."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        sessions = {}
        with (
            tempfile.TemporaryDirectory() as directory,
            loading.traceable(self.vae),
            loading.float32_by_default(),
            four_rounds(),
        ):
            for name, entry in self.table.items():
                path = Path(directory) / f"{name}.onnx"
                onnx_graphs.convert(entry, self.vae.weights).save(path)
                sessions[name] = onnxruntime.InferenceSession(path, options)
        return sessions

    def answers(self):
        """Runs cases in ONNX Runtime."""
        return [_run(self.sessions[case.signature], case) for case in self.cases]

    def tells_what_is_impossible(self):
        """Checks that a row whose data is impossible is NaN, or -1 in codes, and no other row is.

        One number of one input is changed in each row but the last of a batch of 7.
        """
        parts = {each.tensors["x"]: each for each in observations(self.about).values()}
        batches = {case.signature: case for case in self.cases if case.size == 7}
        for case in batches.values():
            kept = _run(self.sessions[case.signature], case)
            for name, part in parts.items():
                for value in _impossible(part) if name in case.inputs else ():
                    changed = case.inputs[name].copy()
                    changed.reshape(7, -1)[:6, 0] = value
                    found = _run(
                        self.sessions[case.signature],
                        dataclasses.replace(case, inputs={**case.inputs, name: changed}),
                    )
                    for output, array in found.items():
                        is_float = array.dtype.kind == "f"
                        told = np.isnan(array) if is_float else array == -1
                        assert told[:6].all(), (case.signature, name, value, output)
                        np.testing.assert_array_equal(array[6:], kept[output][6:])


def _impossible(part):
    """Lists numbers that a part of the data cannot hold."""
    yield np.inf
    if not part.missing:
        yield np.nan
    if part.low is not None:
        yield np.nextafter(np.float32(part.low), np.float32(-np.inf))
    if part.high is not None:
        yield np.nextafter(np.float32(part.high), np.float32(np.inf))
    if part.whole:
        yield 0.5


def _run(session, case):
    if not case.size:
        return "not asked, since it ends the process in some layers"
    try:
        return dict(zip(case.outputs, session.run(list(case.outputs), case.inputs), strict=True))
    except Exception as error:
        return str(error)


def ask(vae, preparation=None, only=None):
    """Gates, traces and answers of a model; `only` some signatures."""
    gates.check_model(vae)
    vae = loading.computing_in_float32(vae)
    gates.check_contract(vae)
    about = manifest.metadata(vae, preparation)
    table = signatures(vae, preparation)
    draw = live.draws(table["sample"].function, about)
    table = {name: entry for name, entry in table.items() if only is None or name in only}
    with loading.traceable(vae), loading.float32_by_default(), four_rounds():
        functions = {name: onnx_graphs.traced(entry) for name, entry in table.items()}
    cases = live.make_cases(live.shapes_of(table), about, draw)
    expected = live.reference(functions, cases)
    cases = live.measured(
        cases,
        expected,
        lambda case: live.asked(functions[case.signature], case),
        saved_model.weights(entry.get_concrete_function() for entry in functions.values()),
        about,
    )
    return Asked(vae, table, functions, about, cases, expected)
