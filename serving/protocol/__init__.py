"""Protocol: what client and server of TensorFlow Serving's interface say to one another.

Nothing here opens a connection or imports TensorFlow. Arrays are NumPy's, float32 or int32;
signatures are those of `serving.artifact`.

    checks      what a signature takes and gives: names, types, shapes, rows, finite numbers
    rest        bodies of the REST interface, in row (`instances`) and columnar (`inputs`) form
    messages    messages of the gRPC interface, and the paths of its methods

A server does `signature, layout, inputs = rest.read_predict(body, signatures)`, runs the inputs,
and answers `rest.write_outputs(signature, outputs, layout)`; over gRPC the same with
`messages.read_predict` and `messages.write_outputs`. Both `read_predict` call `check_inputs`, so
what they return can be run as it is; whatever is wrong is a `ServingError` with one sentence:
`UnknownSignatureError`, `MalformedError` and `InputError` are the caller's mistakes (400,
INVALID_ARGUMENT).
"""
