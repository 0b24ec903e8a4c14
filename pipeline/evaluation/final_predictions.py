"""What becomes of a network's probabilities: their temperature, and the thresholds for accepting them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixelmill.pipeline.config import EvaluationSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.evaluation.temperature import Calibration, calibrate, scale
from pixelmill.pipeline.evaluation.thresholds import Decisions, Threshold, fit_thresholds, judge_decisions
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.training import VALIDATION_FILE, TrainedModel


@dataclass(frozen=True, eq=False)
class FinalPredictions:
    """The predictions for the test images, as the exported file gives them.

    Attributes:
        probabilities: float32 [images, classes], with the temperature if it is used.
        calibration: None unless the recipe asks for a temperature.
        thresholds: One per class; empty unless the recipe names a wanted precision.
        decisions: What the thresholds do on the test images.
    """

    probabilities: Probabilities
    calibration: Calibration | None
    thresholds: tuple[Threshold, ...]
    decisions: Decisions | None

    def to_json(self) -> dict[str, Any]:
        """The entries of `metrics.json`."""
        return {
            **({"calibration": asdict(self.calibration)} if self.calibration else {}),
            **(
                {
                    "thresholds": [row.to_json() for row in self.thresholds],
                    "decisions": asdict(self.decisions),
                }
                if self.decisions
                else {}
            ),
        }


def finish_predictions(
    probabilities: Probabilities, model: TrainedModel, dataset: PreparedDataset, spec: EvaluationSpec
) -> FinalPredictions:
    """Fit what the recipe asks for on the validation images.

    Args:
        probabilities: The predictions for the test images, float32 [images, classes].
        model: The model, with its predictions for the validation images.
        dataset: The dataset with both splits.
        spec: The settings in the recipe.
    """
    if spec.calibration == "none" and spec.precision is None:
        return FinalPredictions(probabilities, None, (), None)
    validation: Probabilities = np.load(model.folder / VALIDATION_FILE, allow_pickle=False)
    validation_labels, labels = dataset.split("validation").labels, dataset.split("test").labels
    calibration = None
    if spec.calibration == "temperature":
        calibration = calibrate(validation, validation_labels, probabilities, labels)
        if calibration.is_used:
            validation = scale(validation, calibration.temperature)
            probabilities = scale(probabilities, calibration.temperature)
    if spec.precision is None:
        return FinalPredictions(probabilities, calibration, (), None)
    thresholds = fit_thresholds(validation, validation_labels, dataset.class_names, spec.precision)
    decisions = judge_decisions(thresholds, probabilities, labels, spec.precision)
    return FinalPredictions(probabilities, calibration, thresholds, decisions)
