"""ONNX: networks written as files that other engines run, and such files run by our operations."""
