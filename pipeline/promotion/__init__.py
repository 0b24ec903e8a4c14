"""The promotion gate: an alias moves only to a version that is good enough and no worse than the last.

Both versions predict the same test images, less those that the last one was trained on. `bars` judges a
version alone, `comparison` against the other, and `judgement` puts the two together.
"""

from dataclasses import dataclass

from pixelmill.pipeline.bundles import ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.promotion.judgement import Judgement, judge_version
from pixelmill.pipeline.promotion.test_images import TestImages
from pixelmill.pipeline.registry import AliasMoved, aliases_of, log_refusal, promote_version
from pixelmill.pipeline.registry.log import user_name
from pixelmill.pipeline.storage import Location

GATE_FILE = "gate.json"
__all__ = [
    "GATE_FILE",
    "Judgement",
    "Promotion",
    "TestImages",
    "VersionRefused",
    "judge_version",
    "promote_bundle",
]


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved to `version`; `replaced` is the version it pointed to before, if any."""

    name: str
    version: int
    alias: str
    replaced: int | None
    judgement: Judgement


class VersionRefused(GateRefused):
    """A version that a gate refused, with the verdicts."""

    def __init__(self, received: str, expected: str, remedy: str, judgement: Judgement) -> None:
        super().__init__(received, expected, remedy)
        self.judgement = judgement


def promote_bundle(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages
) -> Promotion:
    """Point the recipe's alias to a registered bundle if it passes every bar on the test images.

    Raises:
        VersionRefused: It does not pass a bar, or cannot be compared with the version that the alias points
            to.
        WorkError: One of the two versions is damaged.
    """
    while True:
        current = aliases_of(store, bundle.name).get(promotion.alias)
        judgement = judge_version(store, bundle, promotion, test, current)
        if judgement.refusal is not None:
            raise _refuse(store, bundle, promotion, judgement)
        try:
            promote_version(
                store,
                bundle.name,
                bundle.version,
                promotion.alias,
                replacing=current or 0,
                reason=judgement.summary(),
                by=run_of(bundle),
                tested_on=judgement.test_fingerprint,
            )
        except AliasMoved:
            continue  # Another run has moved the alias, so the comparison has to be repeated.
        return Promotion(bundle.name, bundle.version, promotion.alias, current, judgement)


def run_of(bundle: ModelBundle) -> str:
    """The run that trained a version, or the user if it is not known."""
    return str(read_bundle_manifest(bundle.folder).get("run_id") or user_name())


def _refuse(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, judgement: Judgement
) -> VersionRefused:
    reference = f"{bundle.name}@{bundle.version}"
    command = f"`pixelmill models promote {reference}`"
    if promotion.alias != "champion":
        command = f"`pixelmill models promote {reference} --alias {promotion.alias}`"
    received, expected = judgement.refusal or ("", "")
    log_refusal(
        store,
        bundle.name,
        bundle.version,
        promotion.alias,
        reason=f"{received}; expected {expected}",
        by=run_of(bundle),
        tested_on=judgement.test_fingerprint,
    )
    return VersionRefused(
        received,
        expected,
        f"{reference} is registered, and {promotion.alias} is unchanged. To promote it anyway: {command}.",
        judgement,
    )
