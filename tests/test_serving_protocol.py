"""The protocol is TensorFlow Serving's, byte for byte, and refuses what is dangerous in it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    status_pb2,
)

from serving.artifact import Signature, Tensor
from serving.errors import (
    DtypeError,
    InputError,
    MalformedError,
    ReplyError,
    ServingError,
    ShapeError,
    UnknownSignatureError,
    ValueRangeError,
)
from serving.protocol import messages, rest
from serving.protocol import tensorflow_serving_pb2 as pb
from serving.protocol.checks import check_inputs, check_outputs, find_signature

Z = Tensor("float32", (2,))
X = Tensor("float32", (2, 3))
SEED = Tensor("int32", (2,))
NUMBER = Tensor("float32", ())
SIGNATURES = {
    "decode": Signature("decode", "", {"z": Z}, {"mean": X, "logits": X}, None),
    "sample": Signature("sample", "", {"seed": SEED}, {"sample": X, "z": Z}, None),
    "reconstruct": Signature("reconstruct", "", {"x": X}, {"mean": X}, None),
    "score": Signature("score", "", {"x": X, "seed": SEED}, {"elbo": NUMBER, "rate": NUMBER}, None),
}
DECODE, SCORE = SIGNATURES["decode"], SIGNATURES["score"]
LAYOUTS = ("rows", "columns")

THEIRS = {
    pb.TensorShapeProto: tensor_shape_pb2.TensorShapeProto,
    pb.TensorShapeProto.Dim: tensor_shape_pb2.TensorShapeProto.Dim,
    pb.TensorProto: tensor_pb2.TensorProto,
    pb.TensorInfo: meta_graph_pb2.TensorInfo,
    pb.SignatureDef: meta_graph_pb2.SignatureDef,
    pb.SignatureDefMap: get_model_metadata_pb2.SignatureDefMap,
    pb.ModelSpec: model_pb2.ModelSpec,
    pb.PredictRequest: predict_pb2.PredictRequest,
    pb.PredictResponse: predict_pb2.PredictResponse,
    pb.GetModelMetadataRequest: get_model_metadata_pb2.GetModelMetadataRequest,
    pb.GetModelMetadataResponse: get_model_metadata_pb2.GetModelMetadataResponse,
    pb.GetModelStatusRequest: get_model_status_pb2.GetModelStatusRequest,
    pb.StatusProto: status_pb2.StatusProto,
    pb.ModelVersionStatus: get_model_status_pb2.ModelVersionStatus,
    pb.GetModelStatusResponse: get_model_status_pb2.GetModelStatusResponse,
}


def declared(field):
    """Returns what decides how a field is written: on the wire, and in JSON."""
    kinds = (field.type, field.is_repeated, field.is_packed, field.has_presence, field.json_name)
    return field.number, *kinds


@pytest.mark.parametrize("ours", THEIRS, ids=lambda message: message.DESCRIPTOR.name)
def test_every_field_is_declared_as_in_tensorflow_serving(ours):
    theirs = THEIRS[ours].DESCRIPTOR
    for field in ours.DESCRIPTOR.fields:
        other = theirs.fields_by_name[field.name]
        assert declared(field) == declared(other)
        if field.message_type and not field.message_type.GetOptions().map_entry:
            name = field.message_type.full_name.removeprefix("keras_vae.serving.")
            assert other.message_type.full_name.endswith(name)
    assert {m.full_name for m in ours.DESCRIPTOR.nested_types}.isdisjoint(
        {m.full_name for m in theirs.nested_types}
    )


def test_no_message_is_left_out_of_the_comparison():
    names = {
        message.DESCRIPTOR.name for message in THEIRS if not message.DESCRIPTOR.containing_type
    }
    assert names == set(pb.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pb.DataType, types_pb2.DataType),
        (pb.Code, error_codes_pb2.Code),
        (pb.ModelVersionStatus.State, get_model_status_pb2.ModelVersionStatus.State),
    ],
)
def test_enumerations_have_the_numbers_of_tensorflow(ours, theirs):
    assert set(ours.items()) <= set(theirs.items())


def test_paths_are_those_of_the_services():
    for service in (
        prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    ):
        for method in service.methods:
            if method.name in messages.METHODS:
                ours = messages.METHODS[method.name]
                assert ours.path == f"/{service.full_name}/{method.name}"
                assert THEIRS[ours.request].DESCRIPTOR is method.input_type
                assert THEIRS[ours.response].DESCRIPTOR is method.output_type
    assert len(messages.METHODS) == 3


float32 = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.floats(width=32)
)
int32 = hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))


@given(st.one_of(float32, int32))
def test_tensor_is_read_by_tensorflow_and_written_by_tensorflow(array):
    theirs = tensor_pb2.TensorProto.FromString(messages.to_proto(array).SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    ours = pb.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    read = messages.from_proto(ours)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("values", [[], [1.5], [1.5, 2.5], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
def test_typed_field_repeats_its_last_number_as_in_tensorflow(values):
    theirs = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    for size in (2, 3):
        theirs.tensor_shape.dim.add(size=size)
    ours = pb.TensorProto.FromString(theirs.SerializeToString())
    np.testing.assert_array_equal(messages.from_proto(ours), tf.make_ndarray(theirs))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", "complex64"])
def test_tensor_of_another_type_is_refused(dtype):
    array = np.ones((2, 2), dtype)
    with pytest.raises(DtypeError, match=f"got {dtype}"):
        messages.to_proto(array)
    ours = pb.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    with pytest.raises(DtypeError, match="expected DT_FLOAT or DT_INT32"):
        messages.from_proto(ours)


@pytest.mark.parametrize(
    "proto",
    [
        pb.TensorProto(dtype=1, tensor_content=b"123"),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": -1}]}),
        pb.TensorProto(dtype=1, tensor_shape={"unknown_rank": True}, float_val=[1.0]),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2}]}, float_val=[1.0] * 3),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2**40}]}, float_val=[1.0]),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2**62}] * 9}, tensor_content=b"1"),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": n} for n in (0, 16, 2**62)]}),
        pb.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}] * 100}, float_val=[1.0]),
    ],
)
def test_tensor_whose_shape_and_numbers_disagree_is_refused(proto):
    with pytest.raises(MalformedError, match="tensor: "):
        messages.from_proto(proto)


def test_bytes_that_are_no_message_are_refused():
    with pytest.raises(MalformedError, match="Expected a PredictRequest"):
        messages.parse(pb.PredictRequest, b"\xff\xff\xff")


SPECS = [{}, {"version": 3}, {"label": "stable"}]


@pytest.mark.parametrize("version", SPECS)
def test_request_is_the_one_of_tensorflow_serving(version):
    x, seed = np.ones((4, 2, 3), np.float32), np.arange(8, dtype=np.int32).reshape(4, 2)
    theirs = predict_pb2.PredictRequest()
    theirs.model_spec.name, theirs.model_spec.signature_name = "digits", "score"
    if "version" in version:
        theirs.model_spec.version.value = version["version"]
    if "label" in version:
        theirs.model_spec.version_label = version["label"]
    theirs.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    theirs.inputs["seed"].CopyFrom(tf.make_tensor_proto(seed))
    spec = messages.model_spec("digits", signature="score", **version)
    ours = messages.predict_request(spec, {"x": x, "seed": seed})
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
    signature, arrays = messages.read_predict(
        pb.PredictRequest.FromString(theirs.SerializeToString()), SIGNATURES
    )
    assert signature is SCORE
    assert list(arrays) == ["x", "seed"]
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["seed"], seed)


def test_response_is_the_one_of_tensorflow_serving():
    outputs = {"elbo": np.float32([-1.5, -2.5]), "rate": np.float32([0.5, 1.5])}
    theirs = predict_pb2.PredictResponse()
    theirs.model_spec.name, theirs.model_spec.version.value = "digits", 3
    for name, array in outputs.items():
        theirs.outputs[name].CopyFrom(tf.make_tensor_proto(array))
    ours = messages.write_outputs(messages.model_spec("digits", 3), outputs)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
    read = messages.read_outputs(pb.PredictResponse.FromString(theirs.SerializeToString()))
    np.testing.assert_equal(check_outputs(SCORE, read, 2), outputs)


def test_output_filter_chooses_and_is_checked():
    outputs = {"elbo": np.float32([1.0]), "rate": np.float32([2.0])}
    response = messages.write_outputs(messages.model_spec("digits", 3), outputs, ["rate"])
    assert list(response.outputs) == ["rate"]
    request = messages.predict_request(messages.model_spec("digits"), {"z": np.zeros((1, 2), "f")})
    request.output_filter.append("nothing")
    with pytest.raises(InputError, match="output_filter names nothing; the outputs are mean, log"):
        messages.read_predict(request, SIGNATURES)


def test_metadata_is_read_by_tensorflow_serving_and_written_by_it():
    ours = messages.metadata(messages.model_spec("digits", 3), SIGNATURES)
    theirs = get_model_metadata_pb2.GetModelMetadataResponse.FromString(ours.SerializeToString())
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert theirs.metadata["signature_def"].Unpack(definitions)
    assert set(definitions.signature_def) == {*SIGNATURES, "serving_default"}
    score = definitions.signature_def["score"]
    assert score.method_name == "tensorflow/serving/predict"
    assert score.inputs["seed"].dtype == types_pb2.DT_INT32
    assert [dim.size for dim in score.inputs["x"].tensor_shape.dim] == [-1, 2, 3]

    initialiser = definitions.signature_def["__saved_model_init_op"]
    initialiser.outputs["__saved_model_init_op"].name = "NoOp"
    theirs.metadata["signature_def"].Pack(definitions)
    back = pb.GetModelMetadataResponse.FromString(theirs.SerializeToString())
    read = messages.read_metadata(back)
    assert set(read) == {*SIGNATURES, "serving_default"}
    for name, signature in SIGNATURES.items():
        assert (read[name].inputs, read[name].outputs) == (signature.inputs, signature.outputs)


def test_metadata_in_json_is_that_of_tensorflow_serving():
    body = rest.write_metadata(messages.model_spec("digits", 3), SIGNATURES)
    value = json.loads(body)
    assert value["model_spec"] == {"name": "digits", "signature_name": "", "version": "3"}
    assert value["metadata"]["signature_def"]["signature_def"]["decode"]["inputs"]["z"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknown_rank": False,
        },
        "name": "decode_z:0",
    }
    spec, read = rest.read_metadata(body)
    assert spec.version.value == 3
    assert read["score"].inputs == SCORE.inputs

    theirs = json_format.ParseDict(
        value["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    )
    assert set(theirs.signature_def) == {*SIGNATURES, "serving_default"}


def test_status_in_json_is_that_of_tensorflow_serving():
    response = pb.GetModelStatusResponse(
        model_version_status=[{"version": 3, "state": 30, "status": {}}]
    )
    body = rest.write_status(response)
    assert json.loads(body) == {
        "model_version_status": [
            {
                "version": "3",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert rest.read_status(body) == response


def arrays_of(signature, rows=3):
    generator = np.random.default_rng(3)
    return {
        name: generator.integers(-(2**31), 2**31, (rows, *tensor.shape)).astype("int32")
        if tensor.dtype == "int32"
        else generator.standard_normal((rows, *tensor.shape)).astype("float32")
        for name, tensor in signature.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SIGNATURES)
def test_request_and_answer_come_back_from_json_to_the_last_bit(name, layout):
    signature = SIGNATURES[name]
    inputs, outputs = arrays_of(signature.inputs), arrays_of(signature.outputs)
    read = rest.read_predict(rest.write_predict(signature, inputs, layout), SIGNATURES)
    assert read[:2] == (signature, layout)
    np.testing.assert_equal(read[2], inputs)
    body = rest.write_outputs(signature, outputs, layout)
    np.testing.assert_equal(rest.read_outputs(body, signature, layout), outputs)


def test_answers_have_the_forms_of_tensorflow_serving():
    one = {"mean": np.zeros((2, 2, 3), np.float32)}
    rows, columns = (
        json.loads(rest.write_outputs(SIGNATURES["reconstruct"], one, layout)) for layout in LAYOUTS
    )
    assert rows == {"predictions": one["mean"].tolist()}
    assert columns == {"outputs": one["mean"].tolist()}
    two = {"rate": np.float32([3.0, 4.0]), "elbo": np.float32([np.nan, -np.inf])}
    assert rest.write_outputs(SCORE, two, "rows") == (
        b'{"predictions":[{"elbo":NaN,"rate":3.0},{"elbo":-Infinity,"rate":4.0}]}'
    )
    assert rest.write_outputs(SCORE, two, "columns") == (
        b'{"outputs":{"elbo":[NaN,-Infinity],"rate":[3.0,4.0]}}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1, 2.5]]}',
        b'{"instances": [{"z": [1, 2.5]}]}',
        b'{"inputs": [[1, 2.5]], "signature_name": ""}',
        b'{"inputs": {"z": [[1, 2.5]]}, "signature_name": "serving_default"}',
        b'{"signature_name": "decode", "inputs": {"z": [[1, 25e-1]]}}',
    ],
)
def test_every_form_of_a_request_is_read(body):
    signature, _, arrays = rest.read_predict(body, SIGNATURES)
    assert signature is DECODE
    np.testing.assert_array_equal(arrays["z"], np.float32([[1.0, 2.5]]))


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"", MalformedError, "not JSON"),
        (b'{"inputs": [[1, 2]', MalformedError, "not JSON"),
        (b"\xff\xfe", MalformedError, "not JSON"),
        (b"[" * 100_000, MalformedError, "not JSON"),
        (b'{"inputs": [[' + b"9" * 5000 + b", 1]]}", MalformedError, "not JSON"),
        (b"[1, 2]", MalformedError, "expected a JSON object"),
        (b"{}", MalformedError, "neither"),
        (b'{"inputs": [[1, 2]], "instances": [[1, 2]]}', MalformedError, "both"),
        (
            b'{"inputs": [[1, 2]], "signature": "score"}',
            MalformedError,
            'key "signature"',
        ),
        (b'{"inputs": [[1, 2]], "signature_name": 5}', MalformedError, "name of a signature"),
        (b'{"inputs": {"z": [[1, 2]], "z": [[3, 4]]}}', MalformedError, "repeated"),
        (b'{"inputs": [[1, 2]], "signature_name": "no"}', UnknownSignatureError, "has decode, s"),
        (b'{"inputs": 1}', MalformedError, "expected a list of rows; got 1"),
        (b'{"instances": {"z": [[1, 2]]}}', MalformedError, "expected a list of rows; got a dict"),
        (b'{"instances": [{"z": [1, 2]}, [1, 2]]}', MalformedError, "same keys"),
        (b'{"instances": [[1, 2], {"z": [1, 2]}]}', ShapeError, "2 deep"),
        (b'{"instances": [{"z": [1, 2]}, {"y": [1, 2]}]}', MalformedError, "same keys"),
        (b'{"signature_name": "score", "inputs": [[1]]}', MalformedError, "by name, for x, seed"),
        (b'{"inputs": {"z": [[1, 2]], "y": 1}}', InputError, "has the unknown y"),
        (b'{"instances": [{"z": [1, 2], "y": 1}]}', InputError, "has the unknown y"),
        (b'{"inputs": {}}', InputError, "lacks z"),
        (b'{"inputs": []}', InputError, "empty batch"),
        (b'{"instances": []}', InputError, "empty batch"),
        (b'{"inputs": [[]]}', ShapeError, r"expected shape \[batch, 2\]; got \[1, 0\]"),
        (b'{"inputs": [1, 2]}', ShapeError, r"got \[2\].*np.newaxis"),
        (b'{"inputs": [[1, 2, 3]]}', ShapeError, r"got \[1, 3\]"),
        (b'{"inputs": [[1, 2], [1]]}', ShapeError, "same length; got 1 and 2"),
        (b'{"inputs": [[[1, 2]]]}', ShapeError, "2 deep"),
        (b'{"inputs": [[1, [2]]]}', ShapeError, "2 deep"),
        (b'{"inputs": [[1, true]]}', DtypeError, "expected JSON numbers; got true"),
        (b'{"inputs": [[1, null]]}', DtypeError, "got null"),
        (b'{"inputs": [[1, "2"]]}', DtypeError, 'got "2"'),
        (b'{"inputs": [[1, {"b64": "AA=="}]]}', DtypeError, "got a dict"),
        (b'{"inputs": [[1, NaN]]}', ValueRangeError, r"finite.*got nan at \[0, 1\]"),
        (b'{"inputs": [[1, -Infinity]]}', ValueRangeError, "got -inf"),
        (b'{"inputs": [[1, 1e39]]}', ValueRangeError, r"got 1e\+39"),
        (b'{"inputs": [[1, 1e999]]}', ValueRangeError, "got inf"),
        (b'{"inputs": [[1, 1' + b"0" * 400 + b"]]}", ValueRangeError, "range of float32"),
        (b'{"signature_name": "sample", "inputs": [[7, 1.0]]}', DtypeError, "integers; got 1.0"),
        (
            b'{"signature_name": "sample", "inputs": [[7, 2147483648]]}',
            ValueRangeError,
            "214748364",
        ),
        (
            b'{"signature_name": "sample", "inputs": [[1' + b"0" * 30 + b", 0]]}",
            DtypeError,
            r"integers; got 1e\+30",
        ),
    ],
)
def test_request_that_is_wrong_is_refused_with_a_sentence(body, error, words):
    with pytest.raises(ServingError, match=words) as caught:
        rest.read_predict(body, SIGNATURES)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2]],
        np.float64([[1.0, 2.0]]),
        np.float16([[1.0, 2.0]]),
        np.uint8([[1, 2]]),
        np.int64([[1, 2]]),
        np.array([[1.0, 2.0], [0.0, 0.0]], np.float32)[:1],
        np.array([[1.0], [2.0]], ">f4").T,
    ],
)
def test_what_becomes_float32_without_loss_is_taken(value):
    array = check_inputs(DECODE, {"z": value})["z"]
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.float32([[1.0, 2.0]]))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([["1", "2"]]), DtypeError),
        (np.array([[1, None]]), DtypeError),
        (np.complex64([[1, 2]]), DtypeError),
        (np.array([["2020-01-01", "2020-01-02"]], "datetime64[D]"), DtypeError),
        (np.array([[1.0, 3.5e38]]), ValueRangeError),
        (np.array([[1.0, np.inf]], np.float16), ValueRangeError),
        (np.array([[1, 2**24 + 1]]), ValueRangeError),
        (np.array([[1, -(2**63)]]), ValueRangeError),
        (np.array([[1, 2**64 - 1]], np.uint64), ValueRangeError),
        ([[1.0, 2.0], [3.0]], ShapeError),
        (np.zeros((2,)), ShapeError),
        (np.zeros((0, 2)), InputError),
        (3.0, ShapeError),
    ],
)
def test_what_does_not_become_float32_is_refused(value, error):
    with pytest.raises(InputError) as caught:
        check_inputs(DECODE, {"z": value})
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([[1.0, 2.0]]), DtypeError),
        (np.array([[True, False]]), DtypeError),
        (np.array([[1, 2**31]]), ValueRangeError),
        (np.array([[1, 2**31]], np.uint32), ValueRangeError),
    ],
)
def test_what_does_not_become_int32_is_refused(value, error):
    with pytest.raises(error):
        check_inputs(SIGNATURES["sample"], {"seed": value})


def test_int64_in_range_becomes_int32():
    seed = check_inputs(SIGNATURES["sample"], {"seed": [[2**31 - 1, -(2**31)]]})["seed"]
    assert seed.dtype == np.int32
    assert seed.tolist() == [[2**31 - 1, -(2**31)]]


def test_on_the_wire_the_type_must_be_that_of_the_signature():
    with pytest.raises(DtypeError, match="expected float32; got int32"):
        check_inputs(DECODE, {"z": np.int32([[1, 2]])}, exact=True)


def test_inputs_need_the_same_number_of_rows():
    with pytest.raises(ShapeError, match="x has 2, seed has 1"):
        check_inputs(SCORE, {"x": np.zeros((2, 2, 3)), "seed": [[7, 0]]})


def test_no_name_means_decode_and_a_default_of_its_own_goes_first():
    assert find_signature(SIGNATURES, "") is DECODE
    assert find_signature({**SIGNATURES, "serving_default": SCORE}, "") is SCORE


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"elbo": np.float32([1.0])}, "holds elbo"),
        (
            {"elbo": np.float32([1.0, 2.0]), "rate": np.float32([1.0])},
            "1 row; it has 2",
        ),
        ({"elbo": np.float32(1.0), "rate": np.float32([1.0])}, "has none"),
        ({"elbo": np.float64([1.0]), "rate": np.float32([1.0])}, "it is float64"),
        ({"elbo": np.float32([[1.0]]), "rate": np.float32([1.0])}, r"\[1, 1\]"),
        ({"elbo": np.float32([np.nan]), "rate": np.float32([1.0])}, "not finite in row 0"),
    ],
)
def test_answer_that_cannot_be_right_is_refused(outputs, words):
    with pytest.raises(ReplyError, match=words):
        check_outputs(SCORE, outputs, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"predictions": [[1, 2',
        b"<html>502</html>",
        b'{"outputs": [1]}',
        b'{"predictions": 5}',
        b'{"predictions": [["a"]]}',
        b'{"predictions": [{"elbo": 1}, {"rate": 1}]}',
    ],
)
def test_body_that_is_no_answer_is_a_reply_error(body):
    with pytest.raises(ReplyError, match=r"score: the reply cannot be read: "):
        rest.read_outputs(body, SCORE, "rows")


def test_number_too_large_for_float32_in_an_answer_is_not_finite():
    body = b'{"outputs": {"elbo": [1e39], "rate": [1]}}'
    with pytest.raises(ReplyError, match="not finite in row 0"):
        check_outputs(SCORE, rest.read_outputs(body, SCORE, "columns"), 1)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"metadata": 3}', b'{"model_spec": {}}'])
def test_body_that_describes_no_model_is_a_reply_error(body):
    with pytest.raises(ReplyError, match="cannot be read"):
        rest.read_metadata(body)
    with pytest.raises(ReplyError, match="cannot be read"):
        rest.read_status(b"x" + body)


def test_words_of_a_refusal_come_back():
    assert rest.read_error(rest.write_error("no such model")) == "no such model"
    assert rest.read_error(b"<h1>Bad gateway</h1>") == "<h1>Bad gateway</h1>"


def test_protocol_loads_no_tensorflow_and_lives_beside_it():
    code = (
        "import sys; from serving.protocol import messages, rest;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in"
        " ('tensorflow', 'keras', 'export', 'tensorflow_serving', 'jsonschema')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
