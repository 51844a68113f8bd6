"""What every test runs under: the environment, the seeds and the clearing up, in this one place."""

import os
import sys

# TensorFlow, OpenMP and OpenBLAS read these when they load, so they come before any other import.
# One thread each: tests run in two processes on two cores, and a sum then has one order.
os.environ.update(
    {
        "KERAS_BACKEND": "tensorflow",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import logging
from collections.abc import Iterator

import hypothesis
import preloaded
import pytest

from export.runtimes import RUNTIMES

RUNNER = RUNTIMES["saved_model"]
FORKED = dataclasses.replace(RUNNER, command=preloaded.runner)
SEED = 20131220  # arXiv:1312.6114 is dated 20 December 2013

# No deadline, since the first example may trace a graph. In CI the examples are always the same.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


class Everywhere:
    """A plugin rather than plain fixtures: these would not reach the doctests of the packages."""

    @pytest.fixture(autouse=True)
    def _seeded_and_cleared(self) -> Iterator[None]:
        """Seeds each test; restores settings and closes figures after it."""
        import keras

        floatx, image_format = keras.config.floatx(), keras.config.image_data_format()
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(SEED)
        yield
        keras.config.set_floatx(floatx)
        keras.config.set_image_data_format(image_format)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Spares each export an import of TensorFlow; test_runtimes.py keeps the runner itself."""
        RUNTIMES["saved_model"] = RUNNER if item.path.name == "test_runtimes.py" else FORKED


def refuse_unconverted(record: logging.LogRecord) -> bool:
    """Raises where TensorFlow only logs that it could not convert a function of ours.

    Of a lambda it cannot always read the source, and those of the tests are several to a line.
    """
    message = record.getMessage()
    assert "<lambda>" in message or "AutoGraph could not transform" not in message, message
    return True


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger("tensorflow").addFilter(refuse_unconverted)
    config.pluginmanager.register(Everywhere(), "keras-vae-everywhere")


def pytest_collection_finish() -> None:
    """Imports are over; changes this process for the tests, which less_work.py explains."""
    import less_work

    less_work.spare()
