"""Tells whether two revisions compute the same bits: trainings, draws, bounds and exported files.

    python -m benchmarks.same_bits record DIR     at one revision: trains models, keeps their files
                                                  and digests of what they compute
    python -m benchmarks.same_bits compare DIR    at another: trains again, loads the files that
                                                  were kept and computes it again

Both on the same machine: kernels and compilers differ between machines.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_vae
from export.pipeline import export_model

SEED = 7
ROWS = 200

LIKELIHOODS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "continuous_bernoulli": {},
    "normal": {"scale": "optimal"},
    "laplace": {"scale": "per_feature"},
    "discretized_logistic": {"levels": 16},
    "binomial": {"total_count": 15},
    "categorical": {},
    "poisson": {},
}
PAIRS = [("diagonal", "standard_normal"), ("isotropic", "normal_mixture"), ("full", "vamp")]
EXPORTED = (
    "bernoulli-diagonal-standard_normal",
    "normal-full-vamp-conditional",
    "poisson-isotropic-normal_mixture",
)


def data(likelihood: str) -> np.ndarray:
    """Random data inside the support of a likelihood, [200, 6] or [200, 2, 3]."""
    rng = np.random.default_rng(0)
    if likelihood == "categorical":
        return np.eye(3, dtype="float32")[rng.integers(3, size=(ROWS, 2))]
    if likelihood == "bernoulli":
        return (rng.random((ROWS, 6)) < 0.3).astype("float32")
    if likelihood in ("normal", "laplace"):
        return rng.normal(size=(ROWS, 6)).astype("float32")
    if likelihood == "continuous_bernoulli":
        return rng.random((ROWS, 6)).astype("float32")
    return rng.integers(16, size=(ROWS, 6)).astype("float32")


def objectives() -> Iterator[tuple[str, Any]]:
    """Objectives by name, one of each kind of gradient."""
    yield "elbo", keras_vae.ELBO()
    yield "stl", keras_vae.ELBO(kl="monte_carlo", gradient="sticking_the_landing", num_samples=2)
    yield "dreg", keras_vae.IWAE(5, gradient="doubly_reparameterized")
    yield "free", keras_vae.ELBO(free_bits=0.1)


def models() -> Iterator[tuple[str, Any, Any]]:
    """Name, trained model and its data."""
    for likelihood, options in LIKELIHOODS.items():
        for index, (posterior, prior) in enumerate(PAIRS):
            conditional = posterior == "full" and likelihood in ("normal", "poisson")
            keras.utils.set_random_seed(SEED)
            x: Any = data(likelihood)
            shape = x.shape[1:]
            vae = keras_vae.mlp_vae(
                shape,
                2,
                likelihood,
                hidden=(8,),
                posterior=posterior,
                prior=prior,
                num_components=5,
                condition_shape=3 if conditional else None,
                **options,
            )
            if conditional:
                labels = np.random.default_rng(1).integers(3, size=ROWS)
                x = {"x": x, "condition": np.eye(3, dtype="float32")[labels]}
            named = dict(objectives())
            objective = named[("elbo", "stl", "dreg")[index]]
            vae.compile("adam", objective, monitor=index == 1)
            suffix = "-conditional" if conditional else ""
            yield f"{likelihood}-{posterior}-{prior}{suffix}", vae, x
    keras.utils.set_random_seed(SEED)
    vae = keras_vae.mlp_vae(6, 2, "bernoulli", hidden=(8,))
    vae.compile("adam", keras_vae.ELBO(free_bits=0.1), jit_compile=True)
    yield "bernoulli-free-bits-xla", vae, data("bernoulli")


def digest(value: Any) -> str:
    """SHA-256 of the bits of arrays in any structure, floats as they are."""
    total = hashlib.sha256()
    for part in keras.tree.flatten(value):
        array = np.ascontiguousarray(np.asarray(part))
        total.update(str((array.dtype, array.shape)).encode() + array.tobytes())
    return total.hexdigest()


def computed(vae: Any, x: Any) -> dict[str, str]:
    """Digests of what a model computes with seeds, by name."""
    condition = {"condition": x["condition"][:50]} if isinstance(x, dict) else {}
    q = vae.encode(x)
    found = {
        "elbo": digest(vae.elbo(x, num_samples=3, seed=SEED)),
        "sample": digest(vae.sample(50, seed=SEED, **condition)),
        "sample_mean": digest(vae.sample_mean(50, seed=SEED, **condition)),
        "reconstruct": digest(vae.reconstruct(x)),
        "encode": digest([q.mean(), q.log_prob(q.mean())]),
        "importance": digest(keras_vae.evaluation.log_marginal(vae, x, num_samples=50).value),
        "annealed": digest(
            keras_vae.evaluation.log_marginal(
                vae, x, "annealed", num_samples=4, temperatures=5
            ).value
        ),
        "anomaly": digest(
            keras_vae.evaluation.anomaly_scores(vae, x, num_samples=20).negative_elbo
        ),
        "diagnosis": digest(list(keras_vae.evaluation.diagnose(vae, x).rate_per_latent)),
    }
    from keras_vae.signatures import signatures

    for name, signature in signatures(vae).items():
        inputs = {
            key: np.random.default_rng(2).normal(size=(8, *spec.shape[1:])).astype("float32")
            for key, spec in signature.inputs.items()
            if key == "z"
        }
        rows = x if isinstance(x, dict) else {"x": x}
        inputs |= {key: rows[key][:8] for key in signature.inputs if key in rows}
        if "seed" in signature.inputs:
            inputs["seed"] = np.stack([np.arange(8), np.arange(8)], 1).astype("int32")
        found[f"signature {name}"] = digest(signature.function(**inputs))
    return found


def files(vae: Any, x: Any, directory: Path) -> dict[str, str]:
    """Digests of the outputs of the exported ONNX files, and of the files themselves."""
    import onnxruntime

    artifact = export_model(vae, directory)
    found = {}
    rows = x if isinstance(x, dict) else {"x": x}
    for path in sorted(Path(artifact).glob("onnx/*.onnx")):
        session = onnxruntime.InferenceSession(path)
        inputs = {}
        for spec in session.get_inputs():
            if spec.name in rows:
                inputs[spec.name] = rows[spec.name][:8]
            elif spec.name == "seed":
                inputs["seed"] = np.stack([np.arange(8), np.arange(8)], 1).astype("int32")
            else:
                inputs["z"] = np.random.default_rng(2).normal(size=(8, 2)).astype("float32")
        found[f"onnx {path.stem}"] = digest(session.run(None, inputs))
        found[f"file {path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main() -> int:
    """Records or compares; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", default="", help="models whose names contain this")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    table = arguments.directory / "digests.json"
    before = json.loads(table.read_text()) if arguments.action == "compare" else {}
    after: dict[str, dict[str, str]] = {}
    for name, vae, x in models():
        if arguments.only not in name:
            continue
        path = arguments.directory / f"{name}.keras"
        history = vae.fit(x, epochs=2, batch_size=32, verbose=0, validation_split=0.2).history
        trained = {"history": digest(history), "weights": digest(vae.get_weights())}
        if arguments.action == "record":
            vae.save(path)
        kept = keras.saving.load_model(path)
        after[name] = {**trained, **computed(kept, x)}
        if name in EXPORTED:
            after[name] |= files(kept, x, arguments.directory / arguments.action / name)
        differing = [
            key for key, value in after[name].items() if value != before.get(name, {}).get(key)
        ]
        print(
            name,
            "recorded" if not before else f"differs in {differing}" if differing else "equal",
            flush=True,
        )
    if arguments.action == "record":
        known = json.loads(table.read_text()) if table.exists() else {}
        table.write_text(json.dumps({**known, **after}, indent=1))
        return 0
    return int(any(after[name] != before[name] for name in after))


if __name__ == "__main__":
    sys.exit(main())
