"""The promotion gate: an alias moves only to a version that is good enough and no worse than the last."""

from dataclasses import dataclass
from logging import getLogger
from typing import Any

from pixelmill.pipeline.artifacts import read_json, verify_files
from pixelmill.pipeline.bundles import LABELS_FILE, METRICS_FILE, ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.registry import AliasMoved, aliases_of, promote_version, show_model
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved to `version`; `replaced` is the version it pointed to before, if any."""

    name: str
    version: int
    alias: str
    replaced: int | None


@dataclass(frozen=True)
class _Version:
    """The metrics and labels of a registered version, verified against its manifest.

    Attributes:
        reference: `name@version`.
        test: The test section of `metrics.json`.
        classes: The metrics of each class in `metrics.json`.
        labels: The class names.
    """

    reference: str
    test: dict[str, Any]
    classes: tuple[dict[str, Any], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Shortfall:
    """Why a version is not promoted: what it achieves, and what is required."""

    received: str
    expected: str


def promote_bundle(store: Location, bundle: ModelBundle, promotion: PromotionSpec) -> Promotion:
    """Point the recipe's alias to a registered bundle if its metrics on the test images pass the gate.

    Raises:
        GateRefused: The metrics do not meet `PromotionSpec`, or the version that the alias points to has
            different classes.
        WorkError: The metrics or labels of one of the two versions do not match its manifest.
    """
    while True:
        current = aliases_of(store, bundle.name).get(promotion.alias)
        _judge(store, bundle, promotion, current)
        try:
            promote_version(store, bundle.name, bundle.version, promotion.alias, replacing=current or 0)
        except AliasMoved:
            continue  # Another run has moved the alias, so the comparison has to be repeated.
        return Promotion(bundle.name, bundle.version, promotion.alias, current)


def _judge(store: Location, bundle: ModelBundle, promotion: PromotionSpec, current: int | None) -> None:
    new = _read(store, f"{bundle.name}@{bundle.version}")
    shortfall = (
        _check_accuracy(new, promotion) or _check_balance(new, promotion) or _check_recall(new, promotion)
    )
    if shortfall is None and current is not None:
        shortfall = _check_champion(store, new, f"{bundle.name}@{current}", promotion)
    if shortfall is not None:
        command = f"`pixelmill models promote {new.reference}`"
        if promotion.alias != "champion":
            command = f"`pixelmill models promote {new.reference} --alias {promotion.alias}`"
        raise GateRefused(
            shortfall.received,
            shortfall.expected,
            f"{new.reference} is registered, and {promotion.alias} is unchanged. "
            f"To promote it anyway: {command}.",
        )


def _check_accuracy(new: _Version, promotion: PromotionSpec) -> _Shortfall | None:
    accuracy = new.test["accuracy"]
    if accuracy >= promotion.min_accuracy:
        return None
    return _Shortfall(
        f"{new.reference} has a test accuracy of {accuracy:.4f}", f"at least {promotion.min_accuracy:.4f}"
    )


def _check_balance(new: _Version, promotion: PromotionSpec) -> _Shortfall | None:
    balanced, by_chance = new.test["balanced_accuracy"], 1 / len(new.classes)
    low, high = new.test["balanced_accuracy_interval"]
    least = promotion.min_balanced_accuracy
    # The margin allows for rounding: always predicting one class reaches exactly 1 / classes.
    if (low > by_chance + 1e-9) if least is None else (balanced >= least - 1e-9):
        return None
    reached = (
        f"a balanced accuracy of {balanced:.4f} (95% interval {low:.4f} to {high:.4f}) "
        f"on {new.test['images']:,} test images"
    )
    named = [row["name"] for row in new.classes if row["predictions"]]
    only = f"predicts {printable(named[0])} for every test image, which is " if len(named) == 1 else "has "
    expected = (
        f"an interval above {by_chance:.4f}, the result of always predicting one class"
        if least is None
        else f"at least {least:.4f} (promotion.min_balanced_accuracy)"
    )
    return _Shortfall(f"{new.reference} {only}{reached}", expected)


def _check_recall(new: _Version, promotion: PromotionSpec) -> _Shortfall | None:
    lowest = min((row for row in new.classes if row["images"]), key=lambda row: float(row["recall"]))
    if lowest["recall"] >= promotion.min_recall - 1e-9:
        return None
    return _Shortfall(
        f"{new.reference} has a recall of {lowest['recall']:.4f} on the {lowest['images']:,} test images of "
        f"class {printable(lowest['name'])}",
        f"at least {promotion.min_recall:.4f} for each class (promotion.min_recall)",
    )


def _check_champion(
    store: Location, new: _Version, reference: str, promotion: PromotionSpec
) -> _Shortfall | None:
    try:
        old = _read(store, reference)
    except RequestError:
        _log.warning("%s points to %s, which no longer exists", promotion.alias, reference)
        return None
    if old.test["accuracy"] is None:
        _log.warning("%s points to %s, which has no accuracy to compare with", promotion.alias, reference)
        return None
    if difference := _class_difference(new, old):
        return _Shortfall(
            f"{new.reference} has different classes from {reference} ({promotion.alias}): {difference}",
            "the same classes, or another model name",
        )
    # An accuracy is a ratio of counts, so a real excess is larger than this allowance for rounding.
    if old.test["accuracy"] - new.test["accuracy"] <= promotion.max_accuracy_drop + 1e-9:
        return None
    return _Shortfall(
        f"{new.reference} has a test accuracy of {new.test['accuracy']:.4f}",
        f"at most {promotion.max_accuracy_drop:.4f} below the {old.test['accuracy']:.4f} of {reference}",
    )


def _class_difference(new: _Version, old: _Version) -> str:
    """The classes that only one of the versions has, regardless of order; empty if there are none."""
    of_new, of_old = ({normalize_label(name) for name in version.labels} for version in (new, old))
    parts = [
        f"only {version.reference} has {name_some(sorted(names))}"
        for version, names in ((new, of_new - of_old), (old, of_old - of_new))
        if names
    ]
    return "; ".join(parts)


def _read(store: Location, reference: str) -> _Version:
    model = show_model(store, reference)
    verify_files(model.folder, only=(METRICS_FILE, LABELS_FILE))
    return _Version(
        reference=reference,
        test=model.metrics["test"],
        classes=tuple(model.metrics.get("classes", ())),
        labels=tuple(read_json(model.folder / LABELS_FILE)),
    )
