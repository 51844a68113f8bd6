"""Export: a trained model as SavedModel and ONNX, verified elsewhere before it is published."""
