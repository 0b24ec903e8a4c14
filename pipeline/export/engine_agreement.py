"""Whether the engines installed here predict what Keras predicts, for a kind of model not seen before."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles.engine_runs import run_engine
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.golden import GoldenVectors
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.outputs import are_probabilities
from pixelmill.pipeline.inference import Probabilities

_LONGEST_TROUBLE = 200


@dataclass(frozen=True)
class EngineAgreement:
    """What one engine made of a model.

    Attributes:
        engine: Its name.
        version: As installed here.
        images: How many golden images it predicted, all in one batch and one by one.
        label_flips: For how many the class differs from Keras's by more than a tie.
        invalid: For how many it gave NaN, infinity or a row that does not add up to 1.
        max_abs_difference: The largest difference from a probability of Keras; None where it gave none.
        trouble: Why it cannot run the model; empty if it can.
    """

    engine: EngineName
    version: str
    images: int
    label_flips: int
    invalid: int
    max_abs_difference: float | None
    trouble: str


def ask_engines(path: Path, golden: GoldenVectors, tie_margin: float) -> tuple[EngineAgreement, ...]:
    """Let every engine that is installed predict the golden images, each in a process of its own.

    An engine that cannot load or run the file, crashes, or exceeds its limits is one with a trouble.

    Args:
        path: The ONNX file.
        golden: Images, and what Keras predicts for them.
        tie_margin: How far apart two of Keras's probabilities may lie to be a tie.
    """
    installed = [name for name in EngineName if ENGINES[name].version() is not None]
    classes = golden.probabilities.shape[1]
    return tuple(
        _judge(name, run_engine(name, path, golden.tensors, classes), golden.probabilities, tie_margin)
        for name in installed
    )


def require_engines_agree(agreements: Sequence[EngineAgreement]) -> None:
    """Refuse a model that an engine runs and predicts other classes with.

    Raises:
        GateRefused: An engine gives another class than Keras, NaN, or something else than probabilities.
    """
    for each in agreements:
        if each.invalid or each.label_flips:
            what = (
                f"no valid probabilities for {each.invalid} of {each.images} golden images"
                if each.invalid
                else f"another label than Keras for {each.label_flips} of {each.images} golden images"
            )
            raise GateRefused(
                f"{ENGINES[each.engine].title} {each.version} gives {what}",
                "the same labels from every engine installed here that can load the file",
                "It is not published. Replace the layer that this engine computes otherwise, or export "
                "where the engine is not installed, if no one will use it.",
            )


def _judge(
    name: EngineName, predictions: Probabilities | str, keras: Probabilities, tie_margin: float
) -> EngineAgreement:
    version = ENGINES[name].version() or ""
    if isinstance(predictions, str):
        return EngineAgreement(name, version, 0, 0, 0, None, predictions[:_LONGEST_TROUBLE])
    is_valid = np.stack([are_probabilities(rows) for rows in predictions]).all(axis=0)
    rows, first = np.arange(len(keras)), keras.argmax(axis=1)
    flipped = [keras[rows, first] - keras[rows, other] > tie_margin for other in predictions.argmax(axis=2)]
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
