"""Loading Keras files safely, and checking their inputs, outputs and labels.

Imports TensorFlow, so run it in a separate process.
"""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.outputs import final_activation
from pixelmill.pipeline.export.precision import Precision, all_layers, in_precision
from pixelmill.pipeline.training.prediction import load_model

_KERAS_FILE = "a file written by `model.save('model.keras')`"
_SAVE_AGAIN = "Load the model where it was created, and save it with model.save('model.keras')."
_KERAS_CONFIG = "config.json"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_RESCALING_LAYERS = ("Rescaling", "Normalization")
_OUTPUTS_NAMED = 4
_FLOAT32: Precision = "float32"
ImageSize = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class NetworkFacts:
    """The inputs and outputs of a network.

    Attributes:
        image: The input image.
        outputs: The number of outputs.
        takes_uint8: Whether the input is uint8.
        rescales: Whether the network contains a layer that rescales pixels.
        activation: The final activation; see `final_activation`.
    """

    image: ImageSpec
    outputs: int
    takes_uint8: bool
    rescales: bool
    activation: str


def inspect_network(path: Path, size: ImageSize | None = None) -> NetworkFacts:
    """Load a Keras file and describe its inputs and outputs.

    Args:
        path: The Keras file.
        size: The height and width to use, for a network that takes images of any size.

    Raises:
        RequestError: It cannot be loaded safely, or is not an image classifier.
    """
    network = load_network(path)
    return NetworkFacts(
        image=image_spec_of(network, size),
        outputs=network.outputs[0].shape[-1],
        takes_uint8=network.inputs[0].dtype == "uint8",
        rescales=any(type(layer).__name__ in _RESCALING_LAYERS for layer in all_layers(network)),
        activation=final_activation(network),
    )


def load_network(path: Path) -> Any:
    """Load a Keras model, to compute in float32, without running any code from the file.

    Returns:
        The network. If it has one input and one output, both are plain tensors, even if the model was saved
        with a dict or list of one tensor.

    Raises:
        RequestError: It is not a `.keras` file, was never built, or has a Lambda layer or custom classes.
    """
    require_keras_file(path)
    try:
        network = load_model(path)
    except Exception as error:  # noqa: BLE001  # Keras raises exceptions of many types.
        raise _explain(path, error) from None
    if not getattr(network, "built", False) or not getattr(network, "inputs", None):
        raise RequestError(
            f"{path}, a network that was saved without an input shape",
            "a built network that begins with keras.Input((height, width, channels))",
            "Call model.build((None, height, width, channels)) where it was created, and save it again.",
        )
    return in_precision(_with_plain_ends(network), _FLOAT32)


def require_keras_file(path: Path) -> None:
    """Check that a file is an undamaged `.keras` archive.

    Raises:
        RequestError: It is missing, a folder, in another format, or damaged.
    """
    if not path.exists():
        raise RequestError(f"Keras file {path} does not exist", "a .keras file", "Check the path.")
    if not path.is_file():
        kind = "a TensorFlow SavedModel" if (path / "saved_model.pb").is_file() else "a folder or a device"
        raise RequestError(f"{path} is {kind}, not a .keras file", _KERAS_FILE, _SAVE_AGAIN)
    with path.open("rb") as file:
        start = file.read(len(_HDF5_SIGNATURE))
    if start == _HDF5_SIGNATURE:
        # Keras can read HDF5, but would run the code of its Lambda layers.
        raise RequestError(f"{path} is an HDF5 file (.h5), not a .keras file", _KERAS_FILE, _SAVE_AGAIN)
    if not start.startswith(b"PK"):
        raise RequestError(f"{path} is not a .keras file", _KERAS_FILE, _SAVE_AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            is_keras = _KERAS_CONFIG in archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise _damaged(path, str(error)) from None
    if not is_keras:
        raise RequestError(f"{path} is an archive without {_KERAS_CONFIG}", _KERAS_FILE, _SAVE_AGAIN)
    if damaged:
        raise _damaged(path, f"wrong checksum of {damaged}")


def _damaged(path: Path, words: str) -> RequestError:
    return RequestError(
        f"{path} is a damaged .keras file ({words})", _KERAS_FILE, "Copy it again from where it was created."
    )


def _with_plain_ends(network: Any) -> Any:
    """The same network with its only input and output unwrapped from a dict or list."""
    import keras

    if isinstance(network, keras.Sequential) or len(network.inputs) != 1 or len(network.outputs) != 1:
        return network
    if all(isinstance(end, keras.KerasTensor) for end in (network.input, network.output)):
        return network
    return keras.Model(network.inputs[0], network.outputs[0])


def image_spec_of(network: Any, size: ImageSize | None = None) -> ImageSpec:
    """The input image of a network.

    Args:
        network: The network.
        size: The height and width to use, if the network takes images of any size.

    Raises:
        RequestError: It does not have one input, an image with channels last, and one output vector; it
            takes images of any size, and none is given; or it takes images of another size.
    """
    inputs, outputs = list(network.inputs), list(network.outputs)
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    fits = len(inputs) == len(outputs) == 1 and len(shapes[0]) == 4 and len(shapes[1]) == 2
    if fits and shapes[0][3] in (1, 3):
        shapes[0] = (None, *_fix_size(shapes[0][1:3], size), shapes[0][3])
    if not fits or None in shapes[0][1:] or shapes[0][3] not in (1, 3):
        raise RequestError(
            f"a network with inputs {shapes[: len(inputs)]} and outputs {shapes[len(inputs) :]}",
            "one input [batch, height, width, channels] of a fixed size with 1 or 3 channels, and one "
            "output [batch, classes]",
            _how_to_fit(shapes[0], network),
        )
    _, height, width, channels = shapes[0]
    return ImageSpec(height=height, width=width, channels=channels)


def _fix_size(found: Sequence[int | None], size: ImageSize | None) -> ImageSize:
    """The height and width of a network's input, with `size` where the network takes any."""
    if size is None and None in found:
        raise RequestError(
            f"a network that takes images of any size ({_shown(found)})",
            "the height and width to which images are resized",
            "Choose the size it was trained on with `image_size`.",
        )
    if size is not None and any(own not in (None, wanted) for own, wanted in zip(found, size, strict=True)):
        raise RequestError(
            f"`image_size` {_shown(size)} for a network that takes images of {_shown(found)}",
            "the size of its input",
            "Omit it.",
        )
    height, width = size or found
    return int(height or 0), int(width or 0)


def _shown(size: Sequence[int | None]) -> str:
    return "x".join("any" if side is None else str(side) for side in size)


def _how_to_fit(shape: Sequence[int | None], network: Any) -> str:
    if len(network.outputs) > 1:
        names = list(network.output) if isinstance(network.output, dict) else range(len(network.outputs))
        some = ", ".join(f"model.output[{name!r}]" for name in names[:_OUTPUTS_NAMED])
        return f"Save keras.Model(inputs, output) with one of its outputs, such as {some}."
    if len(shape) == 4 and shape[3] == 4:
        return (
            "Images are decoded to 1 or 3 channels, and transparency is composited over a background: save a "
            "model with 3 channels, which adds a constant fourth one inside if it needs one."
        )
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        return (
            "This input has channels first: save a model that begins with "
            "keras.layers.Permute((3, 1, 2)), which takes channels last."
        )
    return "Build the network with such an input, and save it again."


def require_labels(class_names: Sequence[str], outputs: int) -> None:
    """Check that there is one distinct class name for each output.

    Raises:
        RequestError: There are more or fewer names than outputs, or duplicates.
    """
    if outputs != len(class_names):
        raise RequestError(
            f"{len(class_names)} labels for a network with {outputs} outputs",
            "a label for each output, in the order of the outputs",
            "Correct the list of labels.",
        )
    duplicates = [name for name, count in Counter(class_names).items() if count > 1]
    if duplicates:
        raise RequestError(
            f"duplicate label {duplicates[0]!r}", "distinct labels for the outputs", "Correct the labels."
        )


def _explain(path: Path, error: Exception) -> RequestError:
    words = " ".join(str(error).split())
    if "Lambda" in words:
        return RequestError(
            f"{path} has a Lambda layer, which contains code",
            "Keras's built-in layers",
            "Replace it by built-in layers, such as Rescaling, and save the model again.",
        )
    if unknown := re.search(r"Could not (?:locate|deserialize) (?:class|function|module) '?([\w.>]+)", words):
        return RequestError(
            f"{path} needs custom code that the file does not contain: {unknown[1]}",
            "Keras's built-in layers",
            "Replace the layer or function by a built-in one, and save the model again.",
        )
    return RequestError(
        f"{path} cannot be loaded ({type(error).__name__}: {words[:200]})",
        "a model that the installed Keras can read",
        "Install the Keras version that saved it.",
    )
