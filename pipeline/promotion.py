"""The gate before an alias moves: the new version must be good enough, and no worse than the last."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PromotionSpec
from pipeline.errors import GateRefused
from pipeline.export import ModelBundle
from pipeline.registry import aliases_of, promote_version, show_model


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
    reference = f"{bundle.name}@{bundle.version}"
    new = float(show_model(store, reference).metrics["test"]["accuracy"])
    current = aliases_of(store, bundle.name).get(promotion.alias)
    remedy = (
        f"{reference} is registered, and {promotion.alias} stays where it was. "
        f"To overrule: `pixelmill models promote {reference}`."
    )
    if new < promotion.min_accuracy:
        raise GateRefused(
            f"{reference} has a test accuracy of {new:.4f}",
            f"at least {promotion.min_accuracy:.4f}",
            remedy,
        )
    if current is not None:
        old = float(show_model(store, f"{bundle.name}@{current}").metrics["test"]["accuracy"])
        if old - new > promotion.max_accuracy_drop:
            raise GateRefused(
                f"{reference} has a test accuracy of {new:.4f}",
                f"at most {promotion.max_accuracy_drop:.4f} below the {old:.4f} of version {current}",
                remedy,
            )
    promote_version(store, bundle.name, bundle.version, promotion.alias)
    return Promotion(bundle.name, bundle.version, promotion.alias, current)
