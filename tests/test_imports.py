"""`import keras_vae` costs nothing until a name is used, in whatever program it stands."""

import os
import subprocess
import sys
from pathlib import Path

import keras

import keras_vae
from keras_vae import api

ROOT = Path(__file__).parent.parent
HEAVY = ("tensorflow", "keras", "tensorflow_probability", "numpy", "pandas", "matplotlib")


def python(*words: str, cwd: Path) -> str:
    """Runs Python in an empty directory with only the three packages; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    result = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_public_names_are_those_of_the_api() -> None:
    named = {name for name in vars(api) if not name.startswith("_")} - {"keras", "TYPE_CHECKING"}
    assert set(keras_vae.__all__) == named | {"callbacks", "data", "evaluation", "networks"}
    assert dir(keras_vae) == sorted([*keras_vae.__all__, "__version__"])
    for name in named:
        assert getattr(keras_vae, name) is getattr(api, name)
    assert keras_vae.evaluation.log_marginal


def test_everything_that_keras_saves_is_a_public_name() -> None:
    saved = {
        name.removeprefix("keras_vae>"): value
        for name, value in keras.saving.get_custom_objects().items()
        if name.startswith("keras_vae>") and isinstance(value, type)
    }
    assert {"VAE", "ELBO", "Bernoulli", "VampPrior"} <= set(saved) <= set(keras_vae.__all__)


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys, keras_vae, keras_vae.cli\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)), hasattr(keras_vae, 'nothing'))\n"
        "print(sorted(dir(keras_vae)) == sorted([*keras_vae.__all__, '__version__']))"
    )
    assert python("-c", script, cwd=tmp_path) == "[] False\nTrue\n"


def test_keras_loads_a_model_after_a_bare_import(tmp_path: Path) -> None:
    keras_vae.mlp_vae(4, 2).save(tmp_path / "m.keras")
    script = (
        "import keras_vae\n"
        "import keras\n"
        "print(type(keras.saving.load_model('m.keras')).__name__, keras_vae.objectives.ELBO)\n"
        "import sys\n"
        "print({'tf_keras', 'keras_vae.evaluation'} & set(sys.modules))\n"
        "import tensorflow_probability as tfp\n"
        "from keras_vae.distributions.tfp import tfd\n"
        "print(tfp.distributions.Normal is tfd.Normal, tfp.distributions.Gamma is tfd.Gamma)\n"
        "print(tfp.layers.DenseFlipout.__name__, tfp.bijectors.Softplus.__name__)"
    )
    expected = (
        "VAE <class 'keras_vae.objectives.elbo.ELBO'>\nset()\nTrue True\nDenseFlipout Softplus\n"
    )
    assert python("-c", script, cwd=tmp_path) == expected


def test_a_module_of_a_package_that_imports_it_runs_by_its_name(tmp_path: Path) -> None:
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").write_text("from mypkg.model import build\n")
    (package / "model.py").write_text(
        "import keras_vae\nfrom keras_vae import VAE\n\n"
        "def build():\n    return isinstance(keras_vae.mlp_vae(4, 2), VAE)\n"
    )
    (package / "train.py").write_text("from mypkg import build\n\nprint(build())\n")
    assert python("-m", "mypkg.train", cwd=tmp_path) == "True\n"
