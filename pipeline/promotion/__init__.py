"""The gate before an alias moves: the new version must be good enough, and no worse than the last."""

from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import read_json, verify_files
from pixelmill.pipeline.bundles import LABELS_FILE, METRICS_FILE, ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.registry import AliasMoved, aliases_of, promote_version, show_model

_log = getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved: to which version, and from which, if it pointed anywhere."""

    name: str
    version: int
    alias: str
    replaced: int | None


@dataclass(frozen=True)
class _Judged:
    """What a registered version says of itself, its bytes compared with its manifest.

    Attributes:
        reference: `name@version`.
        test: What `metrics.json` says of the test images.
        classes: A row a class there.
        labels: Its class names.
    """

    reference: str
    test: dict[str, Any]
    classes: tuple[dict[str, Any], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Shortfall:
    """Why a version is not promoted: what it reaches, and what it had to."""

    received: str
    expected: str


def promote_bundle(store: Path, bundle: ModelBundle, promotion: PromotionSpec) -> Promotion:
    """Point the recipe's alias to a registered bundle if its results on the test images pass.

    Raises:
        GateRefused: It falls short of what `PromotionSpec` asks for, or the version that the alias points
            to has other classes.
        WorkError: The results or the labels of one of the two are not what its manifest lists.
    """
    while True:
        current = aliases_of(store, bundle.name).get(promotion.alias)
        _judge(store, bundle, promotion, current)
        try:
            promote_version(store, bundle.name, bundle.version, promotion.alias, replacing=current or 0)
        except AliasMoved:
            continue  # Judged against a version that is no longer the one to beat.
        return Promotion(bundle.name, bundle.version, promotion.alias, current)


def _judge(store: Path, bundle: ModelBundle, promotion: PromotionSpec, current: int | None) -> None:
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
            f"{new.reference} is registered, and {promotion.alias} stays where it was. "
            f"To overrule: {command}.",
        )


def _check_accuracy(new: _Judged, promotion: PromotionSpec) -> _Shortfall | None:
    accuracy = new.test["accuracy"]
    if accuracy >= promotion.min_accuracy:
        return None
    return _Shortfall(
        f"{new.reference} has a test accuracy of {accuracy:.4f}", f"at least {promotion.min_accuracy:.4f}"
    )


def _check_balance(new: _Judged, promotion: PromotionSpec) -> _Shortfall | None:
    balanced, by_chance = new.test["balanced_accuracy"], 1 / len(new.classes)
    low, high = new.test["balanced_accuracy_interval"]
    least = promotion.min_balanced_accuracy
    # By more than a rounding error: whoever names one class only reaches just that.
    if (low > by_chance + 1e-9) if least is None else (balanced >= least - 1e-9):
        return None
    reached = (
        f"a balanced accuracy of {balanced:.4f} (95% interval {low:.4f} to {high:.4f}) "
        f"on {new.test['images']:,} test images"
    )
    named = [row["name"] for row in new.classes if row["predictions"]]
    only = f"predicts {printable(named[0])} for every test image, which is " if len(named) == 1 else "has "
    expected = (
        f"an interval above {by_chance:.4f}, what always naming one class reaches"
        if least is None
        else f"at least {least:.4f}, as promotion.min_balanced_accuracy says"
    )
    return _Shortfall(f"{new.reference} {only}{reached}", expected)


def _check_recall(new: _Judged, promotion: PromotionSpec) -> _Shortfall | None:
    lowest = min(new.classes, key=lambda row: float(row["recall"]))
    if lowest["recall"] >= promotion.min_recall - 1e-9:
        return None
    return _Shortfall(
        f"{new.reference} recalls {lowest['recall']:.4f} of the {lowest['images']:,} test images of class "
        f"{printable(lowest['name'])}",
        f"at least {promotion.min_recall:.4f} of each class, as promotion.min_recall says",
    )


def _check_champion(store: Path, new: _Judged, reference: str, promotion: PromotionSpec) -> _Shortfall | None:
    try:
        old = _read(store, reference)
    except RequestError:
        _log.warning("%s, where %s points, is gone", reference, promotion.alias)
        return None
    if old.test["accuracy"] is None:
        _log.warning("%s, where %s points, has no known accuracy to compare with", reference, promotion.alias)
        return None
    if difference := _tell_classes_apart(new, old):
        return _Shortfall(
            f"{new.reference} has other classes than {reference}, which is {promotion.alias}: {difference}",
            "the same classes, or another name for the model",
        )
    # Accuracies are counts over counts: what is over the limit is so by more than a rounding error.
    if old.test["accuracy"] - new.test["accuracy"] <= promotion.max_accuracy_drop + 1e-9:
        return None
    return _Shortfall(
        f"{new.reference} has a test accuracy of {new.test['accuracy']:.4f}",
        f"at most {promotion.max_accuracy_drop:.4f} below the {old.test['accuracy']:.4f} of {reference}",
    )


def _tell_classes_apart(new: _Judged, old: _Judged) -> str:
    """Which classes only one of them has; nothing if there are none such. Their order does not matter."""
    of_new, of_old = ({normalize_label(name) for name in judged.labels} for judged in (new, old))
    parts = [
        f"only {judged.reference} has {name_some(sorted(names))}"
        for judged, names in ((new, of_new - of_old), (old, of_old - of_new))
        if names
    ]
    return "; ".join(parts)


def _read(store: Path, reference: str) -> _Judged:
    model = show_model(store, reference)
    verify_files(model.folder, only=(METRICS_FILE, LABELS_FILE))
    return _Judged(
        reference=reference,
        test=model.metrics["test"],
        classes=tuple(model.metrics.get("classes", ())),
        labels=tuple(read_json(model.folder / LABELS_FILE)),
    )
