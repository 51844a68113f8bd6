"""Explorer: a static page that runs an artifact's ONNX files in the browser."""
