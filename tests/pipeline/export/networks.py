"""Networks as deep as pretrained ones, and the effect of converting them incorrectly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities

CLASSES = 20
IMAGE = ImageSpec(height=96, width=96, channels=3)


@dataclass(frozen=True)
class Measured:
    """The predictions of a network, its ONNX file and its mutants for some files."""

    keras: FilePredictions
    noise: float
    onnx: Probabilities
    mutants: dict[str, Probabilities]


def measure(name: str, files: Sequence[Path], work: Path) -> Measured:
    """Build a network of `keras.applications` and convert it; run this in a separate process.

    There are no pretrained weights here, so the batch normalisation has random scales and offsets, and the
    statistics of the images, and the classifier gives predictions from uncertain to certain.
    """
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")

    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.prediction import measure_noise, predict, predict_files
    from pixelmill.pipeline.images import decode
    from pixelmill.pipeline.inference import load_session

    pixels = np.stack([decode(file.read_bytes(), IMAGE).pixels for file in files])
    network = _build(name, pixels)
    keras = predict_files(network, files, IMAGE)
    (work / "model.onnx").write_bytes(write_onnx(network, IMAGE, ExportSpec(), {}))
    session = load_session(work / "model.onnx")
    mutants = {kind: predict(mutant, pixels) for kind, mutant in _mutants(network)}
    mutants["swapped axes"] = predict(network, np.swapaxes(pixels, 1, 2))
    mutants["swapped colours"] = predict(network, pixels[..., ::-1])
    noise = measure_noise(network, files, IMAGE, keras)
    return Measured(keras, noise, session.probabilities(pixels), mutants)


def _build(name: str, pixels: Pixels) -> Any:
    import keras

    keras.utils.set_random_seed(1)
    random = np.random.default_rng(0)
    application = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(96, 96, 3), pooling="avg"
    )
    for layer in _normalizations(application):
        scale, offset, mean, variance = layer.get_weights()
        scale = random.uniform(0.3, 1.7, scale.shape)
        layer.set_weights([scale, random.normal(0, 0.5, offset.shape), mean, variance])
        layer.momentum = 0.0
    image = keras.Input((96, 96, 3), dtype="uint8")
    scaling = {"MobileNetV2": (1 / 127.5, -1.0), "ResNet50": (1 / 58.0, -2.0)}.get(name, (1.0, 0.0))
    features = application(keras.layers.Rescaling(*scaling, dtype="float32")(image))
    trunk = keras.Model(image, features)
    trunk(pixels, training=True)
    classifier = keras.layers.Dense(CLASSES, activation="softmax")
    network = keras.Model(image, classifier(features))
    values = np.asarray(trunk.predict_on_batch(pixels))
    kernel = random.normal(0, 1, (values.shape[1], CLASSES))
    logits = values @ kernel
    factor = 3 / logits.std()
    classifier.set_weights([kernel * factor, -logits.mean(axis=0) * factor])
    return network


def _normalizations(network: Any) -> list[Any]:
    return [layer for layer in network._flatten_layers() if type(layer).__name__ == "BatchNormalization"]


def _mutants(network: Any) -> Iterator[tuple[str, Any]]:
    """The same weights in networks that differ in settings that a conversion may get wrong."""
    (epsilon, *_) = {layer.epsilon for layer in _normalizations(network)}
    changes: dict[str, Callable[[str, Any], Any]] = {
        "another epsilon": lambda key, value: (
            (1e-5 if epsilon > 1e-4 else 1e-3) if key == "epsilon" else value
        ),
        "no rescaling": lambda key, value: 1 / 255 if key == "scale" and isinstance(value, float) else value,
        # The default padding of other frameworks, which is the same on both sides.
        "other padding": lambda key, value: (
            [[1, 0], [1, 0]] if key == "padding" and _pads_after(value) else value
        ),
    }
    for kind, change in changes.items():
        mutant = _changed(network, change)
        if mutant is not None:
            yield kind, mutant


def _pads_after(value: Any) -> bool:
    return isinstance(value, list | tuple) and [list(pair) for pair in value] in ([[0, 1], [0, 1]],)


def _changed(network: Any, change: Callable[[str, Any], Any]) -> Any:
    """The network with other settings; None if none of its settings changes."""
    import keras

    before = keras.saving.serialize_keras_object(network)
    after = _replace(before, change)
    if after == before:
        return None
    mutant = keras.saving.deserialize_keras_object(after)
    mutant.set_weights(network.get_weights())
    return mutant


def _replace(config: Any, change: Callable[[str, Any], Any]) -> Any:
    if isinstance(config, list):
        return [_replace(item, change) for item in config]
    if isinstance(config, tuple):
        return tuple(_replace(item, change) for item in config)
    if not isinstance(config, dict):
        return config
    return {key: change(key, _replace(value, change)) for key, value in config.items()}


def save_application(name: str, file: Path) -> None:
    """Save a network of `keras.applications` with random weights; run this in a separate process."""
    import keras

    keras.utils.set_random_seed(1)
    application = getattr(keras.applications, name)
    application(weights=None, input_shape=(64, 64, 3), classes=CLASSES).save(file)
