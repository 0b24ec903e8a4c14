"""What the outputs of a network are: probabilities, logits, or the probabilities of a sigmoid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.inference import Probabilities

_ROUNDING = 1e-3
_SIGMOIDS = ("sigmoid", "hard_sigmoid")
_UNKNOWN = "unknown"
# Layers and ops that hand on what the layer before them computed.
_PASSING = ("Dropout", "Flatten", "Identity", "Reshape")
# Which have their activation in their name.
_ACTIVATIONS = ("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax")
_NOT_SOFTMAX = "softmax outputs, because pixelmill gives each image one class"
_TRAIN_WITH_SOFTMAX = (
    "Train the model with a softmax and categorical cross-entropy; `from_logits` does not help here."
)


def are_probabilities(predictions: Probabilities) -> npt.NDArray[np.bool_]:
    """For each row of float32 [images, classes], whether it is finite, not negative and adds up to 1."""
    rows = predictions.astype(np.float64)
    with np.errstate(invalid="ignore"):
        adds_up = np.abs(rows.sum(axis=1) - 1) <= _ROUNDING
        found: npt.NDArray[np.bool_] = (
            np.isfinite(rows).all(axis=1) & (rows >= -_ROUNDING).all(axis=1) & adds_up
        )
    return found


def final_activation(network: Any) -> str:
    """The name of the activation that a network ends with, such as `softmax`, or `unknown`."""
    tensor = network.outputs[0]
    while True:
        history = tensor._keras_history
        operation, kind = history.operation, type(history.operation).__name__
        if hasattr(operation, "layers"):  # A network within the network.
            tensor = operation.outputs[0]
        elif kind in _ACTIVATIONS:
            return "hard_sigmoid" if kind == "HardSigmoid" else kind.lower()
        elif kind in _PASSING or (kind == "Activation" and _activation_of(operation) == "linear"):
            tensor = operation._inbound_nodes[history.node_index].input_tensors[0]
        else:
            return _activation_of(operation)


def _activation_of(operation: Any) -> str:
    return getattr(getattr(operation, "activation", None), "__name__", _UNKNOWN)


def require_one_class_per_image(path: Path, activation: str, outputs: int, from_logits: bool) -> None:
    """Check from a network's definition that its outputs are, or can become, one distribution over classes.

    Args:
        path: The network's file.
        activation: What `final_activation` found.
        outputs: How many numbers it gives for an image.
        from_logits: Whether a softmax is to be added.

    Raises:
        RequestError: It has one output, ends with a sigmoid, or would get a second softmax.
    """
    if outputs == 1:
        binary = "[0 * y, y]" if activation == "linear" else "[1 - y, y]"
        raise RequestError(
            f"{path}, a binary network with one output (activation {activation})",
            "an output for each of two or more classes, with a softmax",
            f"Save keras.Model(model.input, keras.ops.concatenate({binary}, axis=1)) with y = model.output, "
            f"and name two labels, the one that a high output means last"
            f"{'; then add `from_logits`' if activation == 'linear' else ''}.",
        )
    if activation in _SIGMOIDS:
        raise RequestError(
            f"{path}, whose last activation is {activation}: each class by itself (multi-label)",
            _NOT_SOFTMAX,
            _TRAIN_WITH_SOFTMAX,
        )
    if from_logits and activation == "softmax":
        raise RequestError(
            f"`from_logits` for {path}, whose last activation is softmax",
            "a network whose outputs are logits",
            "Leave out `from_logits`: the outputs are probabilities already.",
        )


def require_logits(path: Path, activation: str, outputs: FilePredictions) -> None:
    """Check that outputs which are to go through a softmax are not probabilities already.

    Args:
        path: The network's file.
        activation: What `final_activation` found.
        outputs: What the network gives for some images before the softmax.

    Raises:
        RequestError: They are probabilities of a softmax, or look like those of a sigmoid.
    """
    rows = outputs.probabilities[outputs.is_read]
    if not rows.size or not np.isfinite(rows).all():
        return
    if are_probabilities(rows).all():
        raise RequestError(
            f"`from_logits` for {path}, whose outputs for {len(rows):,} held-out images are between 0 and 1 "
            "and add up to 1",
            "a network whose outputs are logits",
            "Leave out `from_logits`: the outputs are probabilities already.",
        )
    if activation == _UNKNOWN and _are_between_0_and_1(rows):
        raise _looks_like_sigmoid(path, rows)


def require_probabilities(
    path: Path, predictions: FilePredictions, names: Sequence[str], from_logits: bool
) -> None:
    """Check that a network's predictions for held-out images are probabilities.

    Args:
        path: The network's file.
        predictions: What it predicts.
        names: What to call each file.
        from_logits: Whether a softmax was added.

    Raises:
        GateRefused: Predictions are NaN or infinite.
        RequestError: Rows do not add up to 1.
    """
    read = np.flatnonzero(predictions.is_read)
    rows = predictions.probabilities[read]
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        raise GateRefused(
            f"the Keras model predicts NaN or infinity for {len(broken):,} of {len(rows):,} held-out images, "
            f"the first of which is {names[read[broken[0]]]}",
            "finite probabilities that add up to 1 for each image",
            "It is not published. Check its weights for NaN, and the range of pixels it expects.",
        )
    if are_probabilities(rows).all():
        return
    if _are_between_0_and_1(rows):
        raise _looks_like_sigmoid(path, rows)
    sums = rows.sum(axis=1, dtype=np.float64)
    raise RequestError(
        f"{path} gives numbers from {rows.min():.3g} to {rows.max():.3g}, which add up to "
        f"{sums[np.abs(sums - 1).argmax()]:.3g} for one image",
        "probabilities, which are 0 or more and add up to 1",
        "Replace its last layers by a softmax."
        if from_logits
        else "If the outputs are logits, add `from_logits`.",
    )


def _are_between_0_and_1(rows: Probabilities) -> bool:
    return bool(rows.min() >= -_ROUNDING and rows.max() <= 1 + _ROUNDING)


def _looks_like_sigmoid(path: Path, rows: Probabilities) -> RequestError:
    sums = rows.sum(axis=1, dtype=np.float64)
    return RequestError(
        f"{path} gives numbers between 0 and 1 that add up to {sums[np.abs(sums - 1).argmax()]:.3g} for one "
        "image, as a sigmoid does (multi-label)",
        _NOT_SOFTMAX,
        _TRAIN_WITH_SOFTMAX,
    )
