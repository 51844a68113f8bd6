"""P-values inside an artifact: every runtime ranks a score among those of held-out examples."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from export import calibration, pipeline
from export.errors import ExportError
from export.verify import verify
from keras_vae import data, random
from keras_vae.conformal import Conformal
from keras_vae.runs.config import RunConfig
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from keras_vae.signatures import signatures
from serving.score.results import averaged


def table(rows, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"size": rng.normal(3.0, 1.0, rows), "colour": rng.choice(["r", "g"], rows)}
    )
    frame.loc[::7, "size"] = np.nan
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("calibrated")
    table(400).to_csv(directory / "table.csv", index=False)
    settings = {"data": str(directory / "table.csv"), "hidden": (4,), "latent": 2, "epochs": 1}
    return train(RunConfig(**settings, test_fraction=0.5), directory / "run")


@pytest.fixture(scope="module")
def published(run):
    options = pipeline.Options(calibration=calibration.HELD_OUT, imputation_samples=0)
    return pipeline.export(run.model_path, run.path.parent / "artifacts" / "table", options)


def inputs_of(run, frame, seed):
    columns = run.schema.columns
    x = {f"x_{name}": columns[name].raw(frame[name]).reshape(-1, 1) for name in columns}
    return {**x, "seed": random.row_seeds(seed, len(frame)).numpy()}


def test_p_values_rank_the_score_among_the_held_out_rows(run, published):
    manifest = json.loads((published / "manifest.json").read_text())
    known = manifest["calibration"]
    test = run.table().test.frame
    assert known["n"] == len(test) == 200
    vae = run.load()
    score = signatures(vae)["score"].function
    held_out = -score(**inputs_of(run, test, known["seed"]))["elbo"].numpy()
    session = onnxruntime.InferenceSession(published / "onnx" / "score.onnx")
    new = inputs_of(run, table(300, seed=1), 5)
    names = [entry.name for entry in session.get_outputs()]
    found = dict(zip(names, session.run(None, new), strict=True))
    p = Conformal(held_out).p_value(-found["elbo"])
    # 1 / 201 for a tie that rounding breaks, and float32's rounding of the quotient
    assert np.abs(found["p_value"] - p).max() <= 1.0 / 201 + 1e-6
    assert (np.abs(found["p_value"] - p) > 1e-6).mean() < 0.05
    stated = Conformal.from_config(known).p_value(-found["elbo"])
    np.testing.assert_allclose(found["p_value"], stated, rtol=0, atol=1e-7)


def test_p_values_are_small_for_unusual_rows(run, published):
    frame = table(50, seed=2)
    frame["size"] = 12.0
    session = onnxruntime.InferenceSession(published / "onnx" / "score.onnx")
    (p,) = session.run(["p_value"], inputs_of(run, frame, 0))
    np.testing.assert_allclose(p, 1.0 / 201, rtol=1e-6)


def test_an_artifact_with_p_values_verifies_and_explains_them(published):
    verify(published)
    card = (published / "MODEL_CARD.md").read_text()
    assert "n = 200" in card
    assert "P(p_value <= a) <= a" in card
    entries = json.loads((published / "parity.json").read_text())
    assert {each["runtime"] for each in entries if each["output"] == "p_value"} == {
        "onnxruntime",
        "saved_model",
    }


def test_calibration_rows_that_do_not_suit_the_model(run, tmp_path):
    vae, score = run.load(), signatures(run.load())["score"]
    with pytest.raises(ExportError, match=r"examples of x_size, x_colour; got x"):
        calibration.of_rows(score, {"x": np.zeros([3, 2])})
    with pytest.raises(ExportError, match="got none"):
        calibration.of_rows(score, {"x_size": np.zeros([0, 1]), "x_colour": np.zeros([0, 1])})
    with pytest.raises(ExportError, match="score; that of row 1 is"):
        calibration.of_rows(score, {"x_size": np.ones([2, 1]), "x_colour": [[0.0], [np.nan]]})
    with pytest.raises(ExportError, match=r"no config\.toml beside it"):
        calibration.rows(tmp_path / "model.keras", vae, calibration.HELD_OUT)
    table(20).drop(columns="colour").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(data.DataError, match="colour"):
        calibration.rows(run.model_path, vae, str(tmp_path / "other.csv"))
    assert Run(run.path).schema is not None


def test_p_values_of_several_draws_are_not_averaged():
    draws = [np.array([0.25, 0.5], "float32"), np.array([0.75, 0.5], "float32")]
    np.testing.assert_array_equal(averaged("p_value", draws), draws[0])
    np.testing.assert_array_equal(averaged("elbo", draws), [0.5, 0.5])
