"""Models from the user's own files: exported programs, ONNX, factories in Python."""
