"""Export: writes a trained model as SavedModel and ONNX, verified before it is published."""
