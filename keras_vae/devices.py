"""The device that TensorFlow computes on, and what is chosen by it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from keras_vae.tensorflow_start import ONEDNN, has_onednn

__all__ = ["CPU", "Device", "could_use_onednn", "device", "without_tensor_float_32"]

_ASSUMED = 8 * 2**30
"""Bytes of memory of a GPU that does not tell how much it has."""

_CPU_CALL = 32 * 2**20
_TABLES = 1 / 4
_CALL = 1 / 128


@dataclass(frozen=True)
class Device:
    """Hardware that TensorFlow computes on: a CPU, or one or more equal GPUs.

    Attributes:
        kind: "CPU" or "GPU".
        memory: bytes of memory of a GPU.
    """

    kind: Literal["CPU", "GPU"]
    memory: int = 0

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.kind == "GPU"

    @property
    def name(self) -> str:
        """Name by which TensorFlow places operations on it."""
        return f"{self.kind}:0"

    @property
    def table_bytes(self) -> int:
        """Bytes of training data that are kept in a GPU's memory: a quarter of it."""
        return int(_TABLES * self.memory)

    @property
    def call_bytes(self) -> int:
        """Bytes of batches and noise in one call of the training loop.

        On a CPU it is 32 MiB, on a GPU a 128th of its memory.
        """
        return int(_CALL * self.memory) if self.is_gpu else _CPU_CALL

    @property
    def steps_per_call(self) -> int:
        """Maximum number of training steps in one call of the loop.

        A GPU waits between two calls, for about as long as a small step takes.
        """
        return 1000 if self.is_gpu else 100

    @property
    def steps_that_pay(self) -> int:
        """Number of training steps that repay a compilation by XLA.

        It takes one to three seconds on a CPU, and 10 to 13 on a host with a GPU, where an
        uncompiled step is 4 ms slower.
        """
        return 2800 if self.is_gpu else 1000

    @property
    def compiles_convolutions(self) -> bool:
        """Whether convolutions are fast in XLA: on a CPU it computes them many times slower."""
        return self.is_gpu


CPU = Device("CPU")


def device() -> Device:
    """Returns the device that TensorFlow computes on by default.

    GPUs hidden by `tf.config.set_visible_devices` do not count.
    """
    gpus = tf.config.get_visible_devices("GPU")
    return Device("GPU", min(map(_memory, gpus))) if gpus else CPU


def could_use_onednn() -> bool:
    """Tells whether TensorFlow computes on a CPU and has left oneDNN off by its own choice.

    It uses oneDNN by default only on processors with instructions for neural networks, such as
    AVX512-VNNI. Where the environment says which, or TensorFlow does not tell, the answer is False.
    """
    if ONEDNN in os.environ or not has_onednn() or device().is_gpu:
        return False
    try:
        from tensorflow.python.util import _pywrap_util_port as port
    except ImportError:
        return False
    return not port.IsMklEnabled()


def _memory(gpu: Any) -> int:
    """Returns the bytes of memory that TensorFlow may take on a GPU."""
    logical = tf.config.get_logical_device_configuration(gpu)
    limits = [each.memory_limit for each in logical or [] if each.memory_limit]
    return min(limits) * 2**20 if limits else _physical_memory()


@functools.cache
def _physical_memory() -> int:
    """Asks the driver for the bytes of memory of the smallest GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return _ASSUMED
    count, handle, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    found = []
    if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
        for index in range(count.value):
            driver.cuDeviceGet(ctypes.byref(handle), index)
            if driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle) == 0:
                found.append(size.value)
    return min(found, default=_ASSUMED)


@contextlib.contextmanager
def without_tensor_float_32() -> Iterator[None]:
    """Makes a GPU multiply float32 as float32 inside the block, not as TF32 with 10 bits.

    TensorFlow's default on a GPU since Ampere is TF32, with an error of 1e-3 in a product. The
    setting is that of the whole process and is put back afterwards.
    """
    was_enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_enabled)
