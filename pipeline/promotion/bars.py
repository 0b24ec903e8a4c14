"""The bars of a promotion, each judged on the test images with its interval."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import Bar, PromotionSpec
from pixelmill.pipeline.config.promotion import FILE_METRICS, GateBar, Metric
from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.calibration import expected_calibration_error
from pixelmill.pipeline.evaluation.intervals import Z_95, Interval, interval_of_mean, interval_of_proportion
from pixelmill.pipeline.evaluation.paired import cross_entropies
from pixelmill.pipeline.inference import Probabilities

Decision = Literal["passed", "refused", "not judged"]
# Rounding must not refuse a value that equals its limit.
_ROUNDING = 1e-9
_SEED = 0


@dataclass(frozen=True)
class Verdict:
    """How one bar was judged.

    Attributes:
        bar: The metric, or `permanent_checks` or `changed_labels`.
        scope: `all`, `class NAME`, or the slice such as `camera=north`.
        images: Number of images it was judged on; 0 for a property of the file.
        value: The metric of the new version; None if there are no such images.
        interval: Its 95% confidence interval; for a drop, the interval of the drop. None if it has none.
        champion: The metric of the version that the alias points to, on the same images; None if the bar
            does not compare.
        limit: The limit in words: `at least 0.9000`.
        verdict: Whether the version passed; `not judged` if there are no such images.
        p_value: For a drop: of the hypothesis that it is within the limit, adjusted for all drops together.
        max_drop: For a drop: the largest one that is accepted.
        detectable: For a drop: the smallest one that these images could have shown; None if none.
        note: What explains the value, if anything: `predicts cat for every test image`.
    """

    bar: GateBar
    scope: str
    images: int
    value: float | None
    interval: tuple[float, float] | None
    champion: float | None
    limit: str
    verdict: Decision
    p_value: float | None = None
    max_drop: float | None = None
    detectable: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class JudgedPredictions:
    """A version's predictions for the test images.

    Attributes:
        probabilities: float32 [images, classes].
        labels: int64 [images], the true classes.
        class_names: In the order of the outputs.
        slices: The values of each further column of the dataset, as text [images].
        model_bytes: Size of the ONNX file.
        images_per_second: Of inference on this machine, with its lowest and highest value over the batches.
    """

    probabilities: Probabilities
    labels: Labels
    class_names: tuple[str, ...]
    slices: Mapping[str, npt.NDArray[np.str_]]
    model_bytes: int
    images_per_second: tuple[float, float, float]

    def of(self, chosen: npt.NDArray[np.bool_]) -> "JudgedPredictions":
        """The predictions for some of the images; `chosen` is bool [images]."""
        return replace(
            self,
            probabilities=self.probabilities[chosen],
            labels=self.labels[chosen],
            slices={column: values[chosen] for column, values in self.slices.items()},
        )

    def chosen(self, bar: Bar) -> npt.NDArray[np.bool_]:
        """The images of a bar's slice: bool [images]; none if the dataset has no such column."""
        chosen = np.ones(len(self.labels), bool)
        for column, value in bar.slice.items():
            chosen &= self.slices[column] == value if column in self.slices else False
        return chosen


def bars_of(promotion: PromotionSpec) -> Iterator[Bar]:
    """The absolute bars of a recipe; the one against chance is judged by `judge_chance`."""
    if promotion.min_accuracy > 0:
        yield Bar(metric="accuracy", at_least=promotion.min_accuracy)
    if promotion.min_balanced_accuracy:
        yield Bar(metric="balanced_accuracy", at_least=promotion.min_balanced_accuracy)
    if promotion.min_recall > 0:
        yield Bar(metric="recall", at_least=promotion.min_recall)
    yield from (bar for bar in promotion.bars if bar.max_drop is None)


def drops_of(promotion: PromotionSpec) -> Iterator[Bar]:
    """The bars that compare with the version that the alias points to."""
    standard: dict[Metric, float | None] = {
        "accuracy": promotion.max_accuracy_drop,
        "balanced_accuracy": promotion.max_balanced_accuracy_drop,
        "recall": promotion.max_recall_drop,
        "loss": promotion.max_loss_increase,
    }
    yield from (Bar(metric=name, max_drop=limit) for name, limit in standard.items() if limit is not None)
    yield from (bar for bar in promotion.bars if bar.max_drop is not None)


def judge_alone(predictions: JudgedPredictions, promotion: PromotionSpec) -> list[Verdict]:
    """Judge the bars that need no other version."""
    verdicts = [judge_chance(predictions)] if promotion.min_balanced_accuracy is None else []
    for bar in bars_of(promotion):
        verdicts += _judge_bar(predictions, bar)
    return verdicts


def judge_chance(predictions: JudgedPredictions) -> Verdict:
    """Whether the balanced accuracy is above that of always predicting one class, 1 / classes."""
    value, interval = _balanced_accuracy(predictions.probabilities, predictions.labels)
    by_chance = 1 / len(predictions.class_names)
    predicted = np.unique(predictions.probabilities.argmax(axis=1))
    only = printable(predictions.class_names[predicted[0]]) if len(predicted) == 1 else ""
    return Verdict(
        bar="balanced_accuracy",
        scope="all",
        images=len(predictions.labels),
        value=value,
        interval=interval,
        champion=None,
        limit=f"an interval above {by_chance:.4f}, the result of always predicting one class",
        verdict="passed" if interval.low > by_chance + _ROUNDING else "refused",
        note=f"predicts {only} for every test image" if only else "",
    )


def _judge_bar(predictions: JudgedPredictions, bar: Bar) -> Iterator[Verdict]:
    chosen = predictions.chosen(bar)
    limit = (
        f"at least {_shown(bar.at_least)}" if bar.at_least is not None else f"at most {_shown(bar.at_most)}"
    )
    for scope, members in scopes_of(bar, chosen, predictions.labels, predictions.class_names):
        value, interval = _measure(predictions, bar.metric, members)
        if value is None:
            decision: Decision = "not judged"
        elif bar.at_least is not None:
            decision = "passed" if value >= bar.at_least - _ROUNDING else "refused"
        else:
            decision = "passed" if value <= (bar.at_most or 0.0) + _ROUNDING else "refused"
        images = 0 if bar.metric in FILE_METRICS else int(members.sum())
        yield Verdict(bar.metric, scope, images, value, interval, None, limit, decision)


def scopes_of(
    bar: Bar, chosen: npt.NDArray[np.bool_], labels: Labels, class_names: Sequence[str]
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The parts of the test images that a bar judges by themselves: their name, and bool [images]."""
    title = ", ".join(f"{column}={value}" for column, value in bar.slice.items())
    if bar.metric != "recall":
        yield title or "all", chosen
        return
    for index, name in enumerate(class_names):
        if bar.of_class in (None, name):
            yield f"{title}, class {name}" if title else f"class {name}", chosen & (labels == index)


def _measure(
    predictions: JudgedPredictions, metric: Metric, members: npt.NDArray[np.bool_]
) -> tuple[float | None, tuple[float, float] | None]:
    if metric == "model_bytes":
        return float(predictions.model_bytes), None
    if metric == "images_per_second":
        speed, lowest, highest = predictions.images_per_second
        return speed, (lowest, highest)
    if not members.any():
        return None, None
    return MEASURES[metric](predictions.probabilities[members], predictions.labels[members])


def _accuracy(probabilities: Probabilities, labels: Labels) -> tuple[float, Interval]:
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return right / len(labels), interval_of_proportion(right, len(labels))


def _balanced_accuracy(probabilities: Probabilities, labels: Labels) -> tuple[float, Interval]:
    right = probabilities.argmax(axis=1) == labels
    counts = [
        (int(right[labels == label].sum()), int((labels == label).sum())) for label in np.unique(labels)
    ]
    return float(np.mean([count / total for count, total in counts])), interval_of_mean(counts)


def _loss(probabilities: Probabilities, labels: Labels) -> tuple[float, tuple[float, float]]:
    losses = cross_entropies(probabilities, labels)
    mean = float(losses.mean())
    half = Z_95 * float(losses.std(ddof=1)) / len(losses) ** 0.5 if len(losses) > 1 else float("inf")
    return mean, (mean - half, mean + half)


def _calibration_error(probabilities: Probabilities, labels: Labels) -> tuple[float, tuple[float, float]]:
    return expected_calibration_error(probabilities, labels, np.random.default_rng(_SEED))


MEASURES: dict[Metric, Callable[[Probabilities, Labels], tuple[float, tuple[float, float]]]] = {
    "accuracy": _accuracy,
    "recall": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "loss": _loss,
    "calibration_error": _calibration_error,
}


def _shown(limit: float | None) -> str:
    return f"{limit:,.0f}" if limit is not None and abs(limit) >= 100 else f"{limit:.4f}"
