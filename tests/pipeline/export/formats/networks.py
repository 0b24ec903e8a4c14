"""Folders like those of bundles, with small Keras networks and their files in every format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.config import ExportFormat, ExportSpec, ImageSpec
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.images import Pixels

IMAGE = ImageSpec(height=12, width=16, channels=3)
CLASSES = ("cat", 'big "dog"', "bird\nor\tplane")


def draw_images(count: int) -> Pixels:
    """Blocks of colours, uint8 [count, 12, 16, 3]."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 3), np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


def write_networks(folder: Path, calibration: Pixels) -> dict[str, str]:
    """Write networks, each in a folder with all files of a draft, and convert them; in a separate process.

    Args:
        folder: Where to write. It contains two copies of a bundle, `digits` and `black`.
        calibration: The training images of that bundle. `black` is calibrated on black images.

    Returns:
        What was said of the networks that cannot be converted, by name.
    """
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    keras.utils.set_random_seed(1)
    pixels = keras.Input((12, 16, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    said = {
        "digits": _convert(folder / "digits", ("litert", "openvino", "triton"), calibration),
        "black": _convert(folder / "black", ("litert",), calibration[:64] * 0),
        "residual": _draft(folder / "residual", keras.Model(pixels, _residual(keras, scaled)), "all"),
        "sinh": _draft(folder / "sinh", keras.Model(pixels, _head(keras, keras.ops.sinh(scaled))), "sinh"),
    }
    return {name: words for name, words in said.items() if words}


def _residual(keras: Any, scaled: Any) -> Any:
    """Depthwise, grouped and strided convolutions with a residual connection, exact GELU and CELU."""
    layers = keras.layers
    first = layers.Conv2D(8, 3, padding="same", activation="gelu")(scaled)
    inner = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(first)
    inner = layers.BatchNormalization()(inner)
    inner = layers.Activation("silu")(layers.Conv2D(8, 1)(inner))
    joined = layers.Add()([first, inner])
    grouped = layers.Conv2D(16, 3, strides=2, groups=4, activation="celu")(joined)
    return _head(keras, grouped)


def _head(keras: Any, features: Any) -> Any:
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    return keras.layers.Dense(len(CLASSES), activation="softmax")(pooled)


def _draft(folder: Path, network: Any, name: str) -> str:
    from pixelmill.pipeline.artifacts import write_json
    from pixelmill.pipeline.bundles.golden import write_golden
    from pixelmill.pipeline.bundles.metadata import scoring_metadata
    from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.prediction import predict

    folder.mkdir()
    network.save(folder / "model.keras")
    preprocessing = describe_preprocessing(IMAGE)
    write_json(folder / "labels.json", CLASSES)
    write_json(folder / "preprocessing.json", preprocessing)
    metadata = {**scoring_metadata(CLASSES, preprocessing), "name": name, "version": "3"}
    (folder / "model.onnx").write_bytes(write_onnx(network, IMAGE, ExportSpec(), metadata))
    write_golden(folder, draw_images(4), IMAGE, lambda tensors: predict(network, tensors))
    return _convert(folder, ("litert", "openvino", "triton", "ort"), draw_images(50))


def _convert(folder: Path, formats: Sequence[ExportFormat], calibration: Pixels) -> str:
    from pixelmill.pipeline.export.formats.conversion import write_formats

    try:
        write_formats(folder, formats, calibration)
    except PixelmillError as error:
        return f"{error.exit_code}: {error}"
    return ""
