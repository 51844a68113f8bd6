"""Which ops of TensorFlow exported functions may hold."""

import pytest

from export.purity import impurity


@pytest.mark.parametrize(
    "op",
    [
        "BroadcastGradientArgs",
        "Conv2D",
        "DenseBincount",
        "MatMul",
        "ReadVariableOp",
        "StatelessWhile",
        "TensorListReserve",
        "TensorListStack",
        "While",
    ],
)
def test_ops_that_only_compute_are_pure(op):
    assert impurity(op) is None


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ("RandomStandardNormal", "is random"),
        ("StatelessRandomUniformV2", "is random"),
        ("StatelessMultinomial", "is random"),
        ("StatelessShuffle", "is random"),
        ("FractionalMaxPool", "is random"),
        ("PyFunc", "runs Python"),
        ("PyFuncStateless", "runs Python"),
        ("AssignVariableOp", "keeps state"),
        ("WriteFile", "keeps state or acts outside"),
        ("PrintV2", "acts outside"),
        ("HashTableV2", "keeps state"),
        ("Abort", "acts outside"),
        ("DebugIdentity", "acts outside"),
        ("ImmutableConst", "acts outside"),
        ("BatchFunction", "acts outside"),
        ("XlaCustomCallV2", "acts outside"),
        ("ReadFile", "strings or files"),
        ("MatchingFiles", "strings or files"),
        ("MapDataset", "not an array"),
        ("AssignAdd", "resource"),
        ("TensorArrayWrite", "resource"),
        ("ShellCommand", "is unknown to TensorFlow"),
    ],
)
def test_ops_that_do_more_are_named(op, words):
    assert words in impurity(op)
