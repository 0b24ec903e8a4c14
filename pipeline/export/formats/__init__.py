"""The formats of a bundle besides ONNX: converted, compared with `model.onnx`, and published or refused.

`conversion` writes the files, `agreement` is the gate, `addition` does both for a bundle.
"""
