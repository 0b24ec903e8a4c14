"""The judgement of one version: every bar with its value, its interval and its verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from logging import getLogger
from typing import Any

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.promotion.bars import Verdict, judge_alone
from pixelmill.pipeline.promotion.comparison import judge_drops
from pixelmill.pipeline.promotion.test_images import Flags, TestImages, predict_test_images, trained_on
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """How a version was judged.

    Attributes:
        reference: The version that was judged, `name@version`.
        champion: The version it was compared with, `name@version`; None if there was none.
        images: Number of test images on which both versions were compared; those of the version alone if
            there was no comparison.
        left_out_as_trained_on: Number of test images left out because the champion was trained on them.
        test_fingerprint: SHA-256 of the contents of the test images, in any order.
        verdicts: One for each bar and part of the test images.
        refusal: What the version has, and what is expected; None if it passed.
    """

    reference: str
    champion: str | None
    images: int
    left_out_as_trained_on: int
    test_fingerprint: str
    verdicts: tuple[Verdict, ...]
    refusal: tuple[str, str] | None

    def summary(self) -> str:
        """Why a version that passed was promoted, in one line."""
        judged = sum(verdict.verdict == "passed" for verdict in self.verdicts)
        bars = f"passed {judged} bar{'s' * (judged != 1)} on {self.images:,} test images"
        return f"{bars}, compared with {self.champion}" if self.champion else bars

    def table(self) -> list[dict[str, Any]]:
        """One row for each bar, as text and numbers for a page."""
        return [
            {
                "bar": verdict.bar,
                "scope": printable(verdict.scope),
                "value": _number(verdict.value),
                "interval": " to ".join(map(_number, verdict.interval or ())),
                "champion": _number(verdict.champion) if verdict.champion is not None else "",
                "limit": verdict.limit,
                "smallest drop it could show": _number(verdict.detectable) if verdict.detectable else "",
                "verdict": verdict.verdict,
            }
            for verdict in self.verdicts
        ]

    def to_json(self) -> dict[str, Any]:
        """The judgement as it is printed and stored."""
        return {
            "version": int(self.reference.rpartition("@")[2]),
            "champion": self.champion,
            "gate": [asdict(verdict) for verdict in self.verdicts],
            "compared_on": {
                "images": self.images,
                "left_out_as_trained_on": self.left_out_as_trained_on,
                "fingerprint": self.test_fingerprint,
            },
        }


def judge_version(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages, current: int | None
) -> Judgement:
    """Judge a registered version on test images, alone and against the version that the alias points to.

    Args:
        store: The artifacts root.
        bundle: The version.
        promotion: The bars.
        test: The test images of the run; those that the version was trained on are left out.
        current: The version that the alias points to, if any.

    Raises:
        WorkError: One of the two versions is damaged, or a test image has changed.
    """
    reference = f"{bundle.name}@{bundle.version}"
    challenger = find_bundle(store, reference)
    champion = _find_champion(store, bundle.name, current, promotion)
    predicted = predict_test_images([challenger, *([champion] if champion else [])], test)
    held_out = test.not_among(trained_on(challenger) or ())
    if not held_out.any():
        refusal = (f"{reference} was trained on all {len(held_out):,} test images", "test images of its own")
        return _judgement(reference, None, test, held_out, 0, (), promotion, refusal)
    verdicts = judge_alone(predicted[0].of(held_out), promotion)
    if champion is None:
        return _judgement(reference, None, test, held_out, 0, verdicts, promotion)
    compared = f"{champion.name}@{champion.version}"
    known = held_out & test.of_classes(champion.labels())
    shared = known & test.not_among(trained_on(champion) or ())
    left_out = int(known.sum() - shared.sum())
    refused: tuple[str, str] | None = None
    if missing := _missing_classes(test.class_names, champion.labels()):
        refused = (
            f"{reference} has no class {name_some(missing)}, which {compared} ({promotion.alias}) has",
            "the classes of the earlier version, in any order, and perhaps further ones",
        )
    elif not shared.any():
        refused = (
            f"{compared} ({promotion.alias}) was trained on all {left_out:,} test images of {reference}",
            "test images that neither version was trained on",
        )
    else:
        verdicts += judge_drops(predicted[0].of(shared), predicted[1].of(shared), promotion)
    return _judgement(reference, compared, test, shared, left_out, verdicts, promotion, refused)


def _find_champion(
    store: Location, name: str, current: int | None, promotion: PromotionSpec
) -> ModelBundle | None:
    if current is None:
        return None
    try:
        return find_bundle(store, f"{name}@{current}")
    except RequestError:
        _log.warning("%s points to %s@%d, which no longer exists", promotion.alias, name, current)
        return None


def _judgement(
    reference: str,
    champion: str | None,
    test: TestImages,
    judged: Flags,
    left_out: int,
    verdicts: Sequence[Verdict],
    promotion: PromotionSpec,
    refusal: tuple[str, str] | None = None,
) -> Judgement:
    return Judgement(
        reference=reference,
        champion=champion,
        images=int(judged.sum()),
        left_out_as_trained_on=left_out,
        test_fingerprint=test.fingerprint(judged),
        verdicts=tuple(verdicts),
        refusal=refusal or _first_refusal(reference, champion, verdicts, promotion),
    )


def _first_refusal(
    reference: str, champion: str | None, verdicts: Sequence[Verdict], promotion: PromotionSpec
) -> tuple[str, str] | None:
    """The first bar that was not passed, in words; the others are counted."""
    refused = [verdict for verdict in verdicts if verdict.verdict == "refused"]
    if not refused:
        return None
    first, rest = refused[0], len(refused) - 1
    scope = "" if first.scope == "all" else f" on {printable(first.scope)}"
    name = first.bar.replace("_", " ")
    verb = f"{first.note}, which is" if first.note else "has"
    received = (
        f"{reference} {verb} {'an' if name[0] in 'ai' else 'a'} {name} of {_number(first.value)}{scope}"
    )
    expected = first.limit
    if first.champion is not None:
        received += f", and {champion} ({promotion.alias}) has {_number(first.champion)}"
        low, high = first.interval or (0.0, 0.0)
        confidence = 2 * promotion.confidence - 1
        expected = f"a {first.limit} (the {confidence:.0%} interval is {low:.4f} to {high:.4f})"
    elif first.interval is not None:
        received += f" ({first.interval[0]:.4f} to {first.interval[1]:.4f})"
    received += f" ({first.images:,} test images)" if first.images else ""
    if rest:
        others = dict.fromkeys(f"{one.bar.replace('_', ' ')} ({printable(one.scope)})" for one in refused[1:])
        received += f"; it also fails {name_some(tuple(others))}"
    return received, expected


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}"


def _missing_classes(labels: Sequence[str], wanted: Sequence[str]) -> list[str]:
    known = {normalize_label(name) for name in labels}
    return [name for name in wanted if normalize_label(name) not in known]
