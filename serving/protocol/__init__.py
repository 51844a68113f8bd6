"""Protocol: the messages that clients and servers of TensorFlow Serving's interface exchange.

Nothing here opens a connection or imports TensorFlow. Arrays are NumPy's, float32 or int32;
signatures are those of `serving.artifact`.

    checks      names, types, shapes, rows and finite numbers of inputs and outputs
    rest        bodies of the REST interface, in row (`instances`) and columnar (`inputs`) form
    messages    messages of the gRPC interface, and the paths of its methods

To serve a request, a server calls `signature, layout, inputs = rest.read_predict(body,
signatures)`, runs the inputs, and answers `rest.write_outputs(signature, outputs, layout)`; over
gRPC it calls `messages.read_predict` and `messages.write_outputs`. Both `read_predict` functions
call `check_inputs`, so their results can be run as they are. Every fault is a `ServingError`:
`UnknownSignatureError`, `MalformedError` and `InputError` are the caller's mistakes (400,
INVALID_ARGUMENT).
"""
