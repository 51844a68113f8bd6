"""Spares the tests work of TensorFlow and Python that has no effect on them."""

import functools
import gc

from tensorflow.python import pywrap_tfe
from tensorflow.python.framework import (
    auto_control_deps,
    dtypes,
    op_def_library,
    ops,
    random_seed,
)
from tensorflow.python.util import compat, traceback_utils


def spare() -> None:
    """Changes this process; called once, when the tests are collected."""
    _keep_kernels()
    # An op of a graph remembers the Python stack that made it, for messages; pytest's is deep.
    ops._create_c_op = functools.partial(ops._create_c_op, extract_traceback=False)
    traceback_utils.is_traceback_filtering_enabled = lambda: False  # asked before each op
    _name_types_only_in_errors()
    _leave_text_as_it_is()
    _ask_ops_with_resources()
    gc.collect()
    gc.freeze()  # what is imported is never garbage
    gc.set_threshold(20_000, 10, 3)


def _name_types_only_in_errors() -> None:
    """Lists the types that an op allows for the message of an error, not before each check."""
    check = op_def_library._SatisfiesTypeConstraint

    def check_or_explain(dtype, attr_def, param_name):
        if dtype not in attr_def.allowed_values.list.type:
            check(dtype, attr_def, param_name)

    op_def_library._SatisfiesTypeConstraint = check_or_explain


def _leave_text_as_it_is() -> None:
    """Spares what is text already a search for the encoding of bytes."""
    decode = compat.as_str

    def as_str(text, encoding="utf-8"):
        return text if type(text) is str else decode(text, encoding)

    compat.as_str = as_str


def _ask_ops_with_resources() -> None:
    """Asks an op of a graph which resources it reads or writes if it has any; most have none.

    An op without that attribute answers by an exception of C++. Data sets may hold some.
    """
    get_inputs, handles = auto_control_deps._get_resource_inputs, (dtypes.resource, dtypes.variant)

    def get_inputs_if_any(op):
        return get_inputs(op) if any(each.dtype in handles for each in op.inputs) else ()

    auto_control_deps._get_resource_inputs = get_inputs_if_any


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
