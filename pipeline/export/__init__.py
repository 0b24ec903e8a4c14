"""The fifth stage: a bundle with an ONNX file that is proven to equal the Keras model.

`requests` exports what a user names, `exporter` drafts, proves and publishes, `parity` is the proof.
"""
