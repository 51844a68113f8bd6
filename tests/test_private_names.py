"""What this project relies on that Keras, TensorFlow and TensorFlow Probability do not document.

The tables are the one list of it. A test fails when the code uses a private name that is not in a
table, when a table holds one that is no longer used, and when an installed library has lost one.
"""

import ast
import re
from pathlib import Path

import keras
import pytest
import tensorflow as tf

import keras_vae

PRIVATE = {
    "_all_reduce_sum_gradients": (keras.optimizers.Adam, "gradients come summed over replicas"),
    "_eval_epoch_iterator": (None, "batches of the validation, which Keras makes at its first"),
    "_flatten_layers": (keras.layers.Layer, "all layers of a model, those inside layers too"),
    "_flatten_metrics_in_order": (keras.Model, "train_on_batch(return_dict=False)"),
    "_handle_name": (None, "names of variables while a model is exported"),
    "_inbound_nodes": (keras.layers.Layer, "sizes of activations, for chunks of rows"),
    "_inputs": (tf.data.Dataset, "the datasets that a dataset was made of"),
    "_layers": (None, "whether an objective has networks"),
    "_optimize": (None, "tf2onnx: one optimization, without what it repeats after each"),
    "_start_batch": (keras.callbacks.TensorBoard, "whether it profiles, which needs every step"),
    "_variant_tensor": (tf.data.Dataset, "a dataset class of our own"),
}
"""Private names that are read or assigned, their owner and what they are needed for."""

OVERRIDDEN = {
    "compile": "takes an objective",
    "compile_from_config": "reads it back",
    "get_compile_config": "writes it",
    "fit": "checks data, resumes, trains in chunks",
    "train_step": "one update of every player",
    "test_step": "the bound on one batch",
    "distribute_strategy": "Keras trains as on one device",
    "get_metrics_result": "on all replicas",
    "reset_metrics": "on all replicas",
    "metrics": "loss, elbo, distortion, rate",
    "evaluate": "checks data",
    "predict": "checks data",
    "train_on_batch": "checks data and weights",
    "test_on_batch": "checks data",
    "predict_on_batch": "checks data",
    "save": "refuses formats that cannot be loaded",
    "export": "names the command that exports",
    "summary": "lists the distributions",
    "add_loss": "is refused where it would be ignored",
    "call": "decoder means",
    "get_config": "constructor arguments",
    "from_config": "the model of a configuration",
    "save_own_variables": "states of the random generators",
    "load_own_variables": "states of the random generators",
}
"""Methods of `keras.Model` that `VAE` overrides, and why."""

ROOT = Path(keras_vae.__file__).parents[1]
OURS = {"_asdict", "_replace", "_keras_vae_source"}  # of named tuples; set on our own outputs


def trees():
    for package in ("keras_vae", "export"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ast.parse(path.read_text(), str(path))


def names_of_our_own():
    """Private names that the project defines: functions, classes and attributes of self."""
    found = set(OURS)
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def test_private_names_are_those_of_the_table():
    own = names_of_our_own() - set(PRIVATE)
    used = {
        node.attr
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    }
    assert used - own == set(PRIVATE)


@pytest.mark.parametrize("name", [name for name, (owner, _) in PRIVATE.items() if owner])
def test_installed_libraries_have_the_private_name(name):
    owner, _ = PRIVATE[name]
    assert hasattr(owner, name) or hasattr(owner(), name)


def test_overridden_methods_are_those_of_the_table():
    theirs = {name for cls in keras.Model.__mro__ for name in vars(cls) if name[:2] != "__"}
    ours = {
        name
        for cls in keras_vae.VAE.__mro__
        if cls.__module__.startswith("keras_vae")
        for name in vars(cls)
    }
    assert theirs & ours - {"_abc_impl", "_auto_config", "_inputs"} == set(OVERRIDDEN)


def test_page_on_the_architecture_lists_the_overridden_methods():
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, _, rest = page.partition("## What a model overrides of Keras")
    listed = re.findall(r"^\| `(\w+)` \| .+ \|$", rest.partition("\n## ")[0], re.M)
    assert sorted(listed) == sorted(OVERRIDDEN)
