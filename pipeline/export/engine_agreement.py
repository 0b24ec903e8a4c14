"""Comparing the installed engines with Keras, for models that were trained elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles.engine_runs import run_engine
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.golden import GoldenVectors
from pixelmill.pipeline.bundles.model_files import ONNX_ENGINES
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.inference import Probabilities, are_probabilities

_MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class EngineAgreement:
    """How one engine's predictions compare with Keras's.

    Attributes:
        engine: The engine.
        version: The installed version.
        images: The number of golden images predicted, in one batch and image by image.
        label_flips: The number of images with another class than Keras predicts, ties excluded.
        invalid: The number of images with NaN, infinity or a row that does not add up to 1.
        max_abs_difference: The largest absolute difference from Keras's probabilities; None if the engine
            returned no valid ones.
        trouble: Why the engine cannot run the model; empty if it can.
    """

    engine: EngineName
    version: str
    images: int
    label_flips: int
    invalid: int
    max_abs_difference: float | None
    trouble: str


def compare_engines(
    path: Path, golden: GoldenVectors, tie_margin: float, multi_label: bool = False
) -> tuple[EngineAgreement, ...]:
    """Predict the golden images with every installed engine, each in a separate process.

    For an engine that cannot load or run the file, crashes or exceeds its limits, `trouble` is set.

    Args:
        path: The ONNX file.
        golden: The images and Keras's predictions for them.
        tie_margin: The largest difference of two of Keras's probabilities that counts as a tie.
        multi_label: Whether each class has a probability of its own.
    """
    installed = [name for name in ONNX_ENGINES if ENGINES[name].version() is not None]
    classes = golden.probabilities.shape[1]
    return tuple(
        _compare(
            name,
            run_engine(name, path, golden.tensors, classes),
            golden.probabilities,
            tie_margin,
            multi_label,
        )
        for name in installed
    )


def require_engines_agree(agreements: Sequence[EngineAgreement]) -> None:
    """Refuse a model for which an engine's predictions differ from Keras's.

    Raises:
        GateRefused: An engine predicts another class than Keras, NaN, or rows that are not probabilities.
    """
    for each in agreements:
        if each.invalid or each.label_flips:
            what = (
                f"no valid probabilities for {each.invalid} of {each.images} golden images"
                if each.invalid
                else f"another label than Keras for {each.label_flips} of {each.images} golden images"
            )
            raise GateRefused(
                f"{ENGINES[each.engine].title} {each.version} predicts {what}",
                "the same labels from every installed engine that can load the file",
                "It is not published. Replace the layer that this engine computes differently, or, if nobody "
                "will use the engine, export where it is not installed.",
            )


def _compare(
    name: EngineName,
    predictions: Probabilities | str,
    keras: Probabilities,
    tie_margin: float,
    multi_label: bool,
) -> EngineAgreement:
    version = ENGINES[name].version() or ""
    if isinstance(predictions, str):
        return EngineAgreement(name, version, 0, 0, 0, None, predictions[:_MAX_REASON_LENGTH])
    is_valid = np.stack([are_probabilities(rows, multi_label) for rows in predictions]).all(axis=0)
    rows, top_1 = np.arange(len(keras)), keras.argmax(axis=1)
    flipped = [keras[rows, top_1] - keras[rows, other] > tie_margin for other in predictions.argmax(axis=2)]
    difference = np.abs(predictions.astype(np.float64) - keras)[:, is_valid].max(initial=0.0)
    return EngineAgreement(
        engine=name,
        version=version,
        images=len(keras),
        label_flips=int((np.any(flipped, axis=0) & is_valid).sum()),
        invalid=int((~is_valid).sum()),
        max_abs_difference=float(difference) if is_valid.any() else None,
        trouble="",
    )
