"""Pictures show data as it is: bright is bright, and a name says what is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae import commands
from keras_vae.distributions import supports
from keras_vae.runs import pictures
from keras_vae.runs.config import RunError
from tests.test_units import LEVELS, TABLE, untrained


def test_tiles_keep_tone_and_place() -> None:
    images = np.zeros((3, 2, 2, 1))
    images[1] = 255.0
    images[2] = 51.0
    canvas = pictures.tile(images, 2, (0.0, 255.0))
    assert canvas.shape == (7, 7, 1)
    np.testing.assert_array_equal(canvas[1:3, 1:3], 0.0)
    np.testing.assert_array_equal(canvas[1:3, 4:6], 1.0)
    np.testing.assert_allclose(canvas[4:6, 1:3], 0.2)
    # One range for all: a dim picture beside a bright one stays dim.
    assert pictures.tile(images[2:], 1, (0.0, 255.0)).min() == pytest.approx(0.2)
    assert pictures.tile(np.full((1, 2, 2, 4), 300.0), 1, (0.0, 255.0)).shape == (4, 4, 3)


@pytest.mark.parametrize(("turns", "columns"), [(1, 5), (2, 4), (3, 6), (4, 4), (10, 10)])
def test_rows_of_a_square_of_images_hold_whole_turns(
    turns: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    tile = pictures.tile

    def keep(images: np.ndarray, columns: int, span: tuple[float, float]) -> np.ndarray:
        seen.append(columns)
        return tile(images, columns, span)

    monkeypatch.setattr(pictures, "tile", keep)
    pictures.image_grid({"x": np.zeros((20, 4, 4, 1))}, tmp_path / "a.png", (0.0, 1.0), turns)
    assert seen == [columns]


def test_written_pictures_are_no_negatives(tmp_path: Path) -> None:
    path, dark, bright = tmp_path / "a.png", np.zeros((4, 8, 8, 1)), np.ones((4, 8, 8, 1))
    shown = {"dark": dark, "bright": bright}
    pictures.image_grid(shown, path, (0.0, 1.0))
    left, right = np.array_split(np.asarray(Image.open(path).convert("L")), 2, axis=1)
    # Tiles fill more than half of their panel; elsewhere only letters are black.
    assert (left == 0).mean() > 0.5
    assert (right == 0).mean() < 0.02
    for images, share in ((dark, (0.5, 1.0)), (bright, (0.0, 0.05))):
        pictures.reconstructions(images, images, path, (0.0, 1.0), columns=4)
        black = (np.asarray(Image.open(path).convert("L")) == 0).mean()
        assert share[0] <= black <= share[1]


def test_names_say_what_is_drawn() -> None:
    assert pictures.titles(supports.binary())[0] == "draws, each number 0 or 1"
    assert pictures.titles(supports.integers(255)) == pictures.titles(supports.reals())
    assert pictures.is_image((8, 8, 1))
    assert not pictures.is_image((50, 2))  # a series
    assert not pictures.is_image((8, 8, 2))


def test_a_picture_of_samples_has_draws_beside_their_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}

    def keep(
        panels: dict[str, np.ndarray], path: Path, shown: tuple[float, float], turns: int
    ) -> None:
        assert turns == 1  # no labels
        seen.clear()
        seen.update(panels, range=np.array(shown))
        path.write_bytes(b"")

    monkeypatch.setattr(pictures, "image_grid", keep)
    run = untrained(tmp_path / "run", LEVELS, "discretized_logistic")
    said: list[str] = []
    arguments = {"count": 9, "seed": 3, "out": tmp_path / "a.png", "report": said.append}
    commands.sample(run, mean=False, **arguments)
    assert list(seen) == ["draws from p(x)", "decoder means at the same z", "range"]
    assert seen["range"].tolist() == [0.0, 4.0]
    draws, means = seen["draws from p(x)"], seen["decoder means at the same z"]
    assert set(np.unique(draws)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    np.testing.assert_allclose(means, run.load().sample_mean(9, seed=3), rtol=1e-6)
    commands.sample(run, mean=True, **arguments)
    assert list(seen) == ["decoder means at the same z", "range"]
    assert "9 decoder means at the same z to" in said[-1]


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", TABLE, "normal")
    with pytest.raises(RunError, match=r"shape \(3,\), not that of an image; choose .npy"):
        commands.sample(
            run, count=2, seed=0, mean=False, out=tmp_path / "a.png", report=lambda sentence: None
        )
