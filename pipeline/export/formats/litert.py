"""LiteRT (formerly TensorFlow Lite) files, in float32 and int8. Imports TensorFlow when called."""

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixelmill.pipeline.bundles import MODEL_FILE
from pixelmill.pipeline.bundles.model_files import LITERT_FILE, LITERT_INT8_FILE
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, quote_error
from pixelmill.pipeline.export.keras_loader import load_network
from pixelmill.pipeline.export.tensorflow_ops import traceable_convolutions
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.processes import without_native_output

# What the converter says of an op that LiteRT does not have.
_MISSING_OPS = re.compile(r"(?:TF Select|Custom) ops: ([\w, ]+)")


def write_litert(folder: Path, calibration: Pixels | None) -> None:
    """Write `model.tflite`, and `model.int8.tflite` if there are calibration images.

    Args:
        folder: The bundle's folder, with `model.keras`.
        calibration: uint8 [images, height, width, channels].

    Raises:
        WorkError: LiteRT lacks an op of the model.
    """
    files = convert_to_litert(load_network(folder / MODEL_FILE), calibration)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def convert_to_litert(network: Any, calibration: Pixels | None) -> dict[str, bytes]:
    """The LiteRT files of a Keras network with uint8 input, by name.

    Each has one signature, from uint8 `image` [batch, height, width, channels] to float32 `probabilities`
    [batch, classes], and the same bytes for the same network and images. int8 means weights scaled per
    channel and activations scaled per tensor; the final softmax is computed in float32, because int8
    probabilities are multiples of 1/256 and do not add up to 1.

    Args:
        network: The network.
        calibration: uint8 [images, height, width, channels]; None for no int8 file.

    Raises:
        WorkError: LiteRT lacks an op of the network.
    """
    # The converter prints whole graphs; what matters of them is in the error.
    with warnings.catch_warnings(), without_native_output(shown_on_failure=False):
        warnings.simplefilter("ignore")
        # TensorFlow logs each conversion.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        with traceable_convolutions(network):
            function, module = _trace(network)
        try:
            files = {LITERT_FILE: _converter(function, module).convert()}
            if calibration is not None:
                files[LITERT_INT8_FILE] = _quantize(function, module, calibration)
        except Exception as error:  # The converter's errors have no common base class.
            found = _MISSING_OPS.search(str(error))
            raise WorkError(
                f"a model that LiteRT cannot express: it lacks {found[1].strip()}"
                if found
                else f"a model that cannot be converted to LiteRT ({quote_error(error)})",
                "layers that consist of LiteRT's own ops",
                "Leave litert out of `formats`, or replace the layer.",
            ) from error
    return files


def _trace(network: Any) -> tuple[Any, Any]:
    """The network as a concrete function, and a module that owns its variables."""
    import tensorflow as tf

    _, height, width, channels = network.inputs[0].shape
    signature = tf.TensorSpec((None, height, width, channels), tf.uint8, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def predict(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: network(image, training=False)}

    module = tf.Module()
    # The converter leaves out variables that the module does not own, and it does not see those of Keras.
    module.owned = [variable.value for variable in network.variables]
    module.predict = predict
    return predict.get_concrete_function(), module


def _converter(function: Any, module: Any) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([function], module)


def _quantize(function: Any, module: Any, calibration: Pixels) -> bytes:
    import tensorflow as tf

    def images() -> Iterator[list[Pixels]]:
        for image in calibration:
            yield [image[None]]

    converter = _converter(function, module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = images
    # Despite its name, it is also the one way to leave an op in float32.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["SOFTMAX"])
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=images, debug_options=options
    )
    quantized: bytes = debugger.get_nondebug_quantized_model()
    return quantized
