"""Loading Keras files safely, and making a model that was trained elsewhere one that takes uint8 images.

To be called in a process of its own: it imports TensorFlow.
"""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.outputs import final_activation
from pixelmill.pipeline.export.precision import Precision, all_layers, in_precision
from pixelmill.pipeline.training.prediction import load_model

PixelRange = Literal["0..255", "0..1", "-1..1"]
# Scale and offset that take 0 to 255 there.
_RESCALING: dict[PixelRange, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
}
_KERAS_FILE = "a file that `model.save('model.keras')` wrote"
_SAVE_AGAIN = "Load the Keras model where it was made, and save it with model.save('model.keras')."
_KERAS_CONFIG = "config.json"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_RESCALING_LAYERS = ("Rescaling", "Normalization")
_FLOAT32: Precision = "float32"


@dataclass(frozen=True)
class NetworkFacts:
    """What a network takes and gives.

    Attributes:
        image: What it takes.
        outputs: How many numbers it answers with.
        takes_bytes: Whether it takes pixels as uint8, from 0 to 255.
        rescales: Whether a layer of it brings pixels into a range.
        activation: The activation that it ends with; see `final_activation`.
    """

    image: ImageSpec
    outputs: int
    takes_bytes: bool
    rescales: bool
    activation: str


def inspect_network(path: Path) -> NetworkFacts:
    """Load a model file and say what it takes and gives.

    Raises:
        RequestError: It cannot be loaded safely, or is no classifier of images.
    """
    network = load_network(path)
    return NetworkFacts(
        image=image_spec_of(network),
        outputs=network.outputs[0].shape[-1],
        takes_bytes=network.inputs[0].dtype == "uint8",
        rescales=any(type(layer).__name__ in _RESCALING_LAYERS for layer in all_layers(network)),
        activation=final_activation(network),
    )


def load_network(path: Path) -> Any:
    """Load a Keras model without running any code that the file brings along, to compute in float32.

    Returns:
        A network whose input and output are tensors where it has one of each, also where it was saved with
        a dict or a list of one.

    Raises:
        RequestError: It is no `.keras` file, was never built, or has a Lambda layer or classes of its own.
    """
    require_keras_file(path)
    try:
        network = load_model(path)
    except Exception as error:  # noqa: BLE001  # Of many types, by what Keras stumbled over.
        raise _explain(path, error) from None
    if not getattr(network, "built", False) or not getattr(network, "inputs", None):
        raise RequestError(
            f"{path}, a network that was saved before it had an input shape",
            "a built network, whose first layer is keras.Input((height, width, channels))",
            "Call model.build((None, height, width, channels)) where it was made, and save it again.",
        )
    return in_precision(_with_plain_ends(network), _FLOAT32)


def require_keras_file(path: Path) -> None:
    """Check that a file is an undamaged archive as `model.save('model.keras')` writes it.

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
        # Keras could read it, and would run the code of its Lambda layers.
        raise RequestError(f"{path} is no .keras file but HDF5 (.h5)", _KERAS_FILE, _SAVE_AGAIN)
    if not start.startswith(b"PK"):
        raise RequestError(f"{path} is no .keras file", _KERAS_FILE, _SAVE_AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            is_keras = _KERAS_CONFIG in archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise _damaged(path, str(error)) from None
    if not is_keras:
        raise RequestError(f"{path} is an archive without {_KERAS_CONFIG}", _KERAS_FILE, _SAVE_AGAIN)
    if damaged:
        raise _damaged(path, f"wrong check sum of {damaged}")


def _damaged(path: Path, words: str) -> RequestError:
    return RequestError(
        f"{path} is a damaged .keras file ({words})", _KERAS_FILE, "Copy it again from where it was made."
    )


def _with_plain_ends(network: Any) -> Any:
    """The same network without a dict or a list around its only input and output."""
    import keras

    if isinstance(network, keras.Sequential) or len(network.inputs) != 1 or len(network.outputs) != 1:
        return network
    if all(isinstance(end, keras.KerasTensor) for end in (network.input, network.output)):
        return network
    return keras.Model(network.inputs[0], network.outputs[0])


def take_bytes(network: Any, pixel_range: PixelRange) -> Any:
    """A network that takes uint8 pixels, from 0 to 255, and brings them into the range it expects.

    Args:
        network: Takes [batch, height, width, channels] of any number type; returned as it is if of uint8.
        pixel_range: What it expects of pixels.
    """
    import keras

    if network.inputs[0].dtype == "uint8":
        return network

    image = image_spec_of(network)
    pixels = keras.Input((image.height, image.width, image.channels), dtype="uint8", name="image")
    scale, offset = _RESCALING[pixel_range]
    return keras.Model(pixels, network(keras.layers.Rescaling(scale, offset, dtype=_FLOAT32)(pixels)))


def add_softmax(network: Any) -> Any:
    """A network whose outputs go through a softmax."""
    import keras

    probabilities = keras.layers.Softmax(dtype=_FLOAT32)(network.outputs[0])
    return keras.Model(network.inputs[0], probabilities)


def image_spec_of(network: Any) -> ImageSpec:
    """The image that a network takes.

    Raises:
        RequestError: It does not take one image of a fixed size, channels last, and answer with one vector.
    """
    inputs, outputs = list(network.inputs), list(network.outputs)
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    fits = len(inputs) == len(outputs) == 1 and len(shapes[0]) == 4 and len(shapes[1]) == 2
    if not fits or None in shapes[0][1:] or shapes[0][3] not in (1, 3):
        raise RequestError(
            f"a network with inputs {shapes[: len(inputs)]} and outputs {shapes[len(inputs) :]}",
            "one input [batch, height, width, channels] of a fixed size with 1 or 3 channels, and one "
            "output [batch, classes]",
            "Save keras.Model(inputs, output) with one of its outputs."
            if len(outputs) > 1
            else "Build the network with such an input, and save it again.",
        )
    _, height, width, channels = shapes[0]
    return ImageSpec(height=height, width=width, channels=channels)


def require_labels(class_names: Sequence[str], outputs: int) -> None:
    """See that there is a name for every output, and each but once.

    Raises:
        RequestError: There are more or fewer, or one twice.
    """
    if outputs != len(class_names):
        raise RequestError(
            f"{len(class_names)} labels for a network with {outputs} outputs",
            "a label for each output, in their order",
            "Correct the list of labels.",
        )
    twice = [name for name, count in Counter(class_names).items() if count > 1]
    if twice:
        raise RequestError(
            f"label {twice[0]!r} more than once", "a label of its own for each output", "Correct the labels."
        )


def _explain(path: Path, error: Exception) -> RequestError:
    words = " ".join(str(error).split())
    if "Lambda" in words:
        return RequestError(
            f"{path} has a Lambda layer, which holds code",
            "layers that Keras knows",
            "Write what it does with layers of Keras, such as Rescaling, and save the model again.",
        )
    if unknown := re.search(r"Could not (?:locate|deserialize) (?:class|function|module) '?([\w.>]+)", words):
        return RequestError(
            f"{path} needs code that is not in it: {unknown[1]}",
            "layers that Keras knows",
            "Replace the layer or function by one of Keras, and save the model again.",
        )
    return RequestError(
        f"{path} cannot be loaded ({type(error).__name__}: {words[:200]})",
        "a model that the Keras installed here can read",
        "Install the version of Keras that it was saved with.",
    )
