"""Spares the tests work of TensorFlow and Python that has no effect on them."""

import functools
import gc

from tensorflow.python import pywrap_tfe
from tensorflow.python.framework import auto_control_deps, dtypes, ops, random_seed
from tensorflow.python.util import object_identity


def spare() -> None:
    """Changes this process; called once, when the tests are collected."""
    _keep_kernels()
    # An op of a graph remembers the Python stack that made it, for messages; pytest's is deep.
    ops._create_c_op = functools.partial(ops._create_c_op, extract_traceback=False)
    _ask_ops_with_resources()
    gc.collect()
    gc.freeze()  # what is imported is never garbage
    gc.set_threshold(20_000, 10, 3)


def _ask_ops_with_resources() -> None:
    """Asks an op of a graph which resources it only reads if it has any; most have none.

    An op without that attribute answers by an exception of C++.
    """
    inputs = auto_control_deps.utils.get_read_write_resource_inputs

    def get_inputs(op):
        if all(tensor.dtype != dtypes.resource for tensor in op.inputs):
            return object_identity.ObjectIdentitySet(), object_identity.ObjectIdentitySet()
        return inputs(op)

    auto_control_deps.utils.get_read_write_resource_inputs = get_inputs


def _keep_kernels() -> None:
    """Keeps the kernels of ops, a millisecond each, when a seed is set or a session is cleared.

    TensorFlow discards them since those of random ops have a state that a seed must reset. Hence
    they are still discarded if such an op was made since the last time.
    """
    discard, get_seed = pywrap_tfe.TFE_ContextClearCaches, random_seed.get_seed
    is_random = True

    @functools.wraps(get_seed)
    def get_noted_seed(op_seed):
        nonlocal is_random
        is_random = True
        return get_seed(op_seed)

    def discard_if_random(handle):
        nonlocal is_random
        if is_random:
            discard(handle)
        is_random = False

    random_seed.get_seed = get_noted_seed
    pywrap_tfe.TFE_ContextClearCaches = discard_if_random
