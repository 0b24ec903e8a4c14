"""The promotion gate: an alias moves only to a version that is good enough and no worse than the last.

Both versions predict the same test images, less those that the last one was trained on. `bars` judges a
version alone, `comparison` against the other, `permanent_checks` by the images that a person corrected, and
`preview` by what would change in production; `judgement` puts them together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pixelmill.pipeline.bundles import ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.promotion.judgement import Judgement, judge_version
from pixelmill.pipeline.promotion.test_images import TestImages
from pixelmill.pipeline.registry import AliasMoved, aliases_of, log_refusal, mark_judged, promote_version
from pixelmill.pipeline.registry.log import user_name
from pixelmill.pipeline.storage import Location

GATE_FILE = "gate.json"
__all__ = [
    "GATE_FILE",
    "Judgement",
    "Promotion",
    "TestImages",
    "VersionRefused",
    "judge_bundle",
    "judge_version",
    "promote_bundle",
    "promote_judged",
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

    def judge() -> Judgement:
        return judge_bundle(store, bundle, promotion, test)

    return promote_judged(store, bundle, judge(), judge)


def judge_bundle(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages
) -> Judgement:
    """Judge a version, registered or not yet, against the version that the alias points to now.

    Raises:
        WorkError: One of the two versions is damaged.
    """
    current = aliases_of(store, bundle.name).get(promotion.alias)
    return judge_version(store, bundle, promotion, test, current)


def promote_judged(
    store: Location, bundle: ModelBundle, judgement: Judgement, judge_again: Callable[[], Judgement]
) -> Promotion:
    """Point the alias to a registered bundle if its judgement allows it; the log gets the outcome.

    Args:
        store: The artifacts root.
        bundle: The version.
        judgement: How it was judged.
        judge_again: Judges it again, if the alias has moved since.

    Raises:
        VersionRefused: It did not pass.
        WorkError: It is damaged.
    """
    while judgement.refusal is None:
        try:
            promote_version(
                store,
                bundle.name,
                bundle.version,
                judgement.alias,
                replacing=judgement.current or 0,
                reason=judgement.summary(),
                by=run_of(bundle),
                tested_on=judgement.test_fingerprint,
            )
        except AliasMoved:
            judgement = judge_again()
            continue
        return Promotion(bundle.name, bundle.version, judgement.alias, judgement.current, judgement)
    refusal = _refuse(store, bundle, judgement)
    mark_judged(store, bundle.name, bundle.version)
    raise refusal


def run_of(bundle: ModelBundle) -> str:
    """The run that trained a version, or the user if it is not known."""
    return str(read_bundle_manifest(bundle.folder).get("run_id") or user_name())


def _refuse(store: Location, bundle: ModelBundle, judgement: Judgement) -> VersionRefused:
    received, expected = judgement.refusal or ("", "")
    log_refusal(
        store,
        bundle.name,
        bundle.version,
        judgement.alias,
        reason=f"{received}; expected {expected}",
        by=run_of(bundle),
        tested_on=judgement.test_fingerprint,
    )
    return VersionRefused(
        received,
        expected,
        f"{judgement.reference} is registered, and {judgement.alias} is unchanged. To promote it anyway: "
        f"{judgement.overruling()}.",
        judgement,
    )
