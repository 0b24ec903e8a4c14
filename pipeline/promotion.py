"""The gate before an alias moves: the new version must be good enough, and no worse than the last."""

from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

from pipeline.config import PromotionSpec
from pipeline.errors import GateRefused, RequestError
from pipeline.export import ModelBundle
from pipeline.registry import AliasMoved, aliases_of, promote_version, show_model

_log = getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved: to which version, and from which, if it pointed anywhere."""

    name: str
    version: int
    alias: str
    replaced: int | None


def promote_bundle(store: Path, bundle: ModelBundle, promotion: PromotionSpec) -> Promotion:
    """Point the recipe's alias to a registered bundle if its test accuracy passes.

    Raises:
        GateRefused: It is below the floor, or falls too far behind the version the alias points to.
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
    reference = f"{bundle.name}@{bundle.version}"
    alias = "" if promotion.alias == "champion" else f" --alias {promotion.alias}"
    new = _test_accuracy(store, reference)
    remedy = (
        f"{reference} is registered, and {promotion.alias} stays where it was. "
        f"To overrule: `pixelmill models promote {reference}{alias}`."
    )
    if new < promotion.min_accuracy:
        raise GateRefused(
            f"{reference} has a test accuracy of {new:.4f}",
            f"at least {promotion.min_accuracy:.4f}",
            remedy,
        )
    if current is None:
        return
    try:
        old = _test_accuracy(store, f"{bundle.name}@{current}")
    except RequestError:
        _log.warning("%s@%d, where %s points, is gone", bundle.name, current, promotion.alias)
        return
    # Accuracies are counts over counts: what is over the limit is so by more than a rounding error.
    if old - new > promotion.max_accuracy_drop + 1e-9:
        raise GateRefused(
            f"{reference} has a test accuracy of {new:.4f}",
            f"at most {promotion.max_accuracy_drop:.4f} below the {old:.4f} of version {current}",
            remedy,
        )


def _test_accuracy(store: Path, reference: str) -> float:
    return float(show_model(store, reference).metrics["test"]["accuracy"])
