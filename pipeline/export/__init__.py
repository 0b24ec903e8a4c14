"""The fifth stage: a bundle with an ONNX file that is proven to equal the Keras model.

`requests` exports what a user names, `exporter` drafts, proves and publishes, `parity` is the proof.
"""

from typing import Literal

PixelRange = Literal["0..255", "0..1", "-1..1"]
"""The range of pixels that a network expects."""
