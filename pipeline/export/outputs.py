"""Checking whether a network outputs softmax probabilities, sigmoid probabilities or logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.inference import ROUNDING, Probabilities, are_probabilities

_SIGMOIDS = ("sigmoid", "hard_sigmoid")
_UNKNOWN = "unknown"
# Layers and ops that do not change the values of their input.
_PASSING = ("Dropout", "Flatten", "Identity", "Reshape")
# Ops that are named after their activation.
_ACTIVATIONS = ("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax")
_NOT_SOFTMAX = "softmax outputs, one class for each image, or `multi_label`"
_IF_SEVERAL = (
    "If an image may have several labels, add `multi_label`; otherwise train the model with a softmax and "
    "categorical cross-entropy: `from_logits` does not help here."
)


def final_activation(network: Any) -> str:
    """The name of a network's final activation, such as `softmax`, or `unknown`."""
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
        activation: The result of `final_activation`.
        outputs: The number of outputs.
        from_logits: Whether a softmax will be added.

    Raises:
        RequestError: It has a single output that is not the probability or the logit of a class, ends with
            a sigmoid per class, or would get a second softmax.
    """
    if outputs == 1:
        _require_binary(path, activation, from_logits)
        return
    if activation in _SIGMOIDS:
        raise RequestError(
            f"{path}, whose final activation is {activation} (multi-label)",
            _NOT_SOFTMAX,
            _IF_SEVERAL,
        )
    if from_logits and activation == "softmax":
        raise RequestError(
            f"`from_logits` for {path}, whose final activation is softmax",
            "a network that outputs logits",
            "Omit `from_logits`: the outputs are already probabilities.",
        )


def require_probability_per_class(path: Path, activation: str, outputs: int, from_logits: bool) -> None:
    """Check from a network's definition that each output is, or can become, the probability of a class.

    Args:
        path: The network's file.
        activation: The result of `final_activation`.
        outputs: The number of outputs.
        from_logits: Whether a sigmoid will be added.

    Raises:
        RequestError: It has a single output, ends with a softmax, or would get a second sigmoid.
    """
    if outputs == 1:
        raise RequestError(
            f"`multi_label` for {path}, a network with one output",
            "a probability for each of several classes",
            "Omit `multi_label`, and give two labels: without and with the property.",
        )
    if activation in ("softmax", "logsoftmax"):
        raise RequestError(
            f"`multi_label` for {path}, whose final activation is {activation}: one class for each image",
            "sigmoid outputs, or logits of a model trained with binary cross-entropy",
            "Omit `multi_label`.",
        )
    if from_logits and activation in _SIGMOIDS:
        raise RequestError(
            f"`from_logits` for {path}, whose final activation is {activation}",
            "a network that outputs logits",
            "Omit `from_logits`: the outputs are already probabilities.",
        )


def _require_binary(path: Path, activation: str, from_logits: bool) -> None:
    """Check that the only output of a network is the probability or, `from_logits`, the logit of a class."""
    received = f"{path}, a network with one output (activation {activation})"
    if activation in _SIGMOIDS and from_logits:
        raise RequestError(
            f"`from_logits` for {received}", "a network that outputs a logit", "Omit `from_logits`."
        )
    if activation == "linear" and not from_logits:
        raise RequestError(
            received,
            "the probability of the second label, or its logit",
            "If the output is a logit, add `from_logits`; if it is no classifier, it cannot be exported.",
        )
    if activation not in (*_SIGMOIDS, "linear"):
        raise RequestError(
            received,
            "a sigmoid, or a logit with `from_logits`",
            "End the network with Dense(1, activation='sigmoid'), or with a softmax over two classes.",
        )


def require_logits(path: Path, activation: str, outputs: FilePredictions, multi_label: bool = False) -> None:
    """Check that outputs to which a softmax or sigmoid will be added are not already probabilities.

    Args:
        path: The network's file.
        activation: The result of `final_activation`.
        outputs: The network's outputs for some images, before that.
        multi_label: Whether it is a sigmoid.

    Raises:
        RequestError: They are softmax probabilities, or look like sigmoid probabilities.
    """
    rows = outputs.probabilities[outputs.is_read]
    if not rows.size or not np.isfinite(rows).all():
        return
    if are_probabilities(rows).all():
        raise RequestError(
            f"`from_logits` for {path}, whose outputs for {len(rows):,} held-out images are between 0 and 1 "
            "and add up to 1",
            "a network that outputs logits",
            "Omit `from_logits`: the outputs are already probabilities.",
        )
    if activation == _UNKNOWN and _are_between_0_and_1(rows):
        if multi_label:
            raise RequestError(
                f"`from_logits` for {path}, whose outputs for {len(rows):,} images are between 0 and 1",
                "a network that outputs logits",
                "Omit `from_logits`: the outputs are already probabilities.",
            )
        raise _looks_like_sigmoid(path, rows)


def require_probabilities(
    path: Path,
    predictions: FilePredictions,
    names: Sequence[str],
    from_logits: bool,
    multi_label: bool = False,
) -> None:
    """Check that a network's predictions for held-out images are probabilities.

    Args:
        path: The network's file.
        predictions: The network's predictions.
        names: The names of the files to display.
        from_logits: Whether a softmax, or with `multi_label` a sigmoid, was added.
        multi_label: Whether each output is a probability of its own.

    Raises:
        GateRefused: There are NaN or infinite predictions.
        RequestError: The predictions are not probabilities, which add up to 1 unless `multi_label`.
    """
    read = np.flatnonzero(predictions.is_read)
    rows = predictions.probabilities[read]
    non_finite = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(non_finite):
        raise GateRefused(
            f"the Keras model predicts NaN or infinity for {len(non_finite):,} of {len(rows):,} held-out "
            f"images, the first of which is {names[read[non_finite[0]]]}",
            "finite probabilities for each image",
            "It is not published. Check its weights for NaN, and the pixel range it expects.",
        )
    if are_probabilities(rows, multi_label).all():
        return
    if multi_label:
        raise RequestError(
            f"{path} outputs values from {rows.min():.3g} to {rows.max():.3g}",
            "probabilities, which are at least 0 and at most 1",
            "End the network with a sigmoid, or, if the outputs are logits, add `from_logits`.",
        )
    if _are_between_0_and_1(rows):
        raise _looks_like_sigmoid(path, rows)
    sums = rows.sum(axis=1, dtype=np.float64)
    raise RequestError(
        f"{path} outputs values from {rows.min():.3g} to {rows.max():.3g}, which add up to "
        f"{sums[np.abs(sums - 1).argmax()]:.3g} for one image",
        "probabilities, which are at least 0 and add up to 1",
        "Replace its last layers by a softmax."
        if from_logits
        else "If the outputs are logits, add `from_logits`.",
    )


def _are_between_0_and_1(rows: Probabilities) -> bool:
    return bool(rows.min() >= -ROUNDING and rows.max() <= 1 + ROUNDING)


def _looks_like_sigmoid(path: Path, rows: Probabilities) -> RequestError:
    sums = rows.sum(axis=1, dtype=np.float64)
    return RequestError(
        f"{path} outputs values between 0 and 1 that add up to {sums[np.abs(sums - 1).argmax()]:.3g} for one "
        "image, as sigmoid outputs do (multi-label)",
        _NOT_SOFTMAX,
        _IF_SEVERAL,
    )
