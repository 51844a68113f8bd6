"""Programs of other people that read the ONNX files of an artifact, and what each makes of them."""
