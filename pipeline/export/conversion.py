"""From a Keras file to an ONNX graph. Run it in a process of its own: it imports TensorFlow."""

from pathlib import Path
from typing import Any

from pipeline.config import ExportSpec, ImageSpec
from pipeline.errors import WorkError
from pipeline.training.devices import choose_device, import_tensorflow

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"


def convert(model_path: Path, image: ImageSpec, export: ExportSpec) -> Any:
    """Convert a saved Keras model to an `onnx.ModelProto`.

    The graph takes uint8 `image` [batch, height, width, channels] and gives float32 `probabilities`
    [batch, classes]. Called with `training=False`, so that no layer acts as it does in training.

    Raises:
        WorkError: A layer cannot be expressed in ONNX.
    """
    import_tensorflow()
    choose_device("cpu")
    import keras
    import tensorflow as tf
    import tf2onnx

    network = keras.saving.load_model(model_path, safe_mode=True, compile=False)
    signature = tf.TensorSpec((None, image.height, image.width, image.channels), tf.uint8, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def answer(pixels: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: network(pixels, training=False)}

    try:
        model, _ = tf2onnx.convert.from_function(answer, input_signature=[signature], opset=export.opset)
    except Exception as error:  # tf2onnx raises whatever the layer's conversion stumbled over.
        raise WorkError(
            f"{model_path} cannot be converted to ONNX ({type(error).__name__}: {error})",
            f"layers that opset {export.opset} can express",
            "Replace the layer in the recipe, or raise export.opset.",
        ) from error
    return model
