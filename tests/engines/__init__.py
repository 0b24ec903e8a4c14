"""The matrix of engines: whatever runs an ONNX file gives the probabilities that Keras gave.

`python -m tests.engines` runs all of it and writes the table in `docs/bundle.md`.
"""
