"""The judgement of one version: every bar with its value, its interval and its verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from logging import getLogger
from typing import Any

from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.promotion.bars import Verdict, judge_alone
from pixelmill.pipeline.promotion.comparison import judge_drops
from pixelmill.pipeline.promotion.decisions import count_decisions
from pixelmill.pipeline.promotion.permanent_checks import CheckResults, run_checks
from pixelmill.pipeline.promotion.preview import Preview, judge_changes, preview_changes
from pixelmill.pipeline.promotion.test_images import Flags, TestImages, predict_test_images, trained_on
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """How a version was judged.

    Attributes:
        reference: The version that was judged, `name@version`.
        alias: The alias that it is to get.
        current: The version that the alias pointed to; None for none.
        champion: The version it was compared with, `name@version`; None if there was none.
        images: Number of test images on which both versions were compared; those of the version alone if
            there was no comparison.
        left_out_as_trained_on: Number of test images left out because the champion was trained on them.
        test_fingerprint: SHA-256 of the contents of the test images, in any order.
        earlier_decisions: How often the same test images have decided before; None if that is not known.
        verdicts: One for each bar and part of the test images.
        confidence: That of the comparison with the champion, for all drops together.
        checks: The permanent checks; None if the model has none.
        preview: What would change in the last production batch; None without a sample of one.
        refusal: What the version has, and what is expected; None if it passed.
    """

    reference: str
    alias: str
    current: int | None
    champion: str | None
    images: int
    left_out_as_trained_on: int
    test_fingerprint: str
    earlier_decisions: int | None
    verdicts: tuple[Verdict, ...]
    confidence: float
    checks: CheckResults | None
    preview: Preview | None
    refusal: tuple[str, str] | None

    @property
    def smallest_drop(self) -> float | None:
        """The smallest drop in the accuracy on all images that could have been found; None if none."""
        found = [row for row in self.verdicts if (row.bar, row.scope) == ("accuracy", "all")]
        return next((row.detectable for row in found if row.champion is not None), None)

    def overruling(self) -> str:
        """The command that promotes the version anyway."""
        if self.checks is not None and self.checks.failed:
            return f'`pixelmill models promote {self.reference} --alias {self.alias} --force --reason "..."`'
        if self.alias != "champion":
            return f"`pixelmill models promote {self.reference} --alias {self.alias}`"
        return f"`pixelmill models promote {self.reference}`"

    def outcome(self) -> str:
        """The verdict in a few words."""
        if self.refusal is None:
            return f"{self.reference} passed the gate"
        return f"{self.reference} is refused by the gate"

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
                "earlier decisions by these images": "unknown"
                if self.earlier_decisions is None
                else self.earlier_decisions,
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
                "earlier_decisions": self.earlier_decisions,
            },
            "permanent_checks": self.checks and self.checks.to_json(),
            "preview": self.preview and self.preview.to_json(),
        }


@dataclass(frozen=True)
class _Comparison:
    """The verdicts of a version, and the test images that they are about."""

    verdicts: tuple[Verdict, ...]
    judged: Flags
    left_out: int = 0
    refusal: tuple[str, str] | None = None


def judge_version(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages, current: int | None
) -> Judgement:
    """Judge a version, registered or not yet: alone, against the version that the alias points to, by the
    permanent checks of the model, and by what it would change in the last production batch.

    Args:
        store: The artifacts root.
        bundle: The version.
        promotion: The bars.
        test: The test images of the run; those that the version was trained on are left out.
        current: The version that the alias points to, if any.

    Raises:
        WorkError: One of the two versions is damaged, or a test image has changed.
    """
    challenger = open_bundle(bundle.folder)
    champion = _find_champion(store, bundle.name, current, promotion)
    found = _compare(challenger, champion, promotion, test)
    checks = run_checks(store, challenger, champion)
    preview = preview_changes(store, challenger, champion)
    further = (checks.verdict() if checks else None, judge_changes(preview, promotion))
    verdicts = (*found.verdicts, *(verdict for verdict in further if verdict is not None))
    reference, compared = _reference(challenger), _reference(champion) if champion else None
    fingerprint = test.fingerprint(found.judged)
    return Judgement(
        reference=reference,
        alias=promotion.alias,
        current=current,
        champion=compared,
        images=int(found.judged.sum()),
        left_out_as_trained_on=found.left_out,
        test_fingerprint=fingerprint,
        earlier_decisions=count_decisions(store, bundle.name, fingerprint),
        verdicts=verdicts,
        confidence=promotion.confidence,
        checks=checks,
        preview=preview,
        refusal=found.refusal or _first_refusal(reference, compared, verdicts, promotion),
    )


def _compare(
    challenger: ModelBundle, champion: ModelBundle | None, promotion: PromotionSpec, test: TestImages
) -> _Comparison:
    predicted = predict_test_images([challenger, *([champion] if champion else [])], test)
    held_out = test.not_among(trained_on(challenger) or ())
    reference = _reference(challenger)
    if not held_out.any():
        refusal = (f"{reference} was trained on all {len(held_out):,} test images", "test images of its own")
        return _Comparison((), held_out, refusal=refusal)
    verdicts = tuple(judge_alone(predicted[0].of(held_out), promotion))
    if champion is None:
        return _Comparison(verdicts, held_out)
    compared = f"{_reference(champion)} ({promotion.alias})"
    known = held_out & test.of_classes(champion.labels())
    shared = known & test.not_among(trained_on(champion) or ())
    left_out = int(known.sum() - shared.sum())
    if missing := _missing_classes(test.class_names, champion.labels()):
        refusal = (
            f"{reference} has no class {name_some(missing)}, which {compared} has",
            "the classes of the earlier version, in any order, and perhaps further ones",
        )
        return _Comparison(verdicts, shared, left_out, refusal)
    if not shared.any():
        refusal = (
            f"{compared} was trained on all {left_out:,} test images of {reference}",
            "test images that neither version was trained on",
        )
        return _Comparison(verdicts, shared, left_out, refusal)
    drops = judge_drops(predicted[0].of(shared), predicted[1].of(shared), promotion)
    return _Comparison((*verdicts, *drops), shared, left_out)


def _reference(bundle: ModelBundle) -> str:
    return f"{bundle.name}@{bundle.version}"


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


def _first_refusal(
    reference: str, champion: str | None, verdicts: Sequence[Verdict], promotion: PromotionSpec
) -> tuple[str, str] | None:
    """The first bar that was not passed, in words; the others are counted."""
    refused = [verdict for verdict in verdicts if verdict.verdict == "refused"]
    if not refused:
        return None
    first = refused[0]
    describe = _WORDS.get(first.bar, _describe_metric)
    received, expected = describe(first, champion, promotion)
    if refused[1:]:
        others = dict.fromkeys(f"{one.bar.replace('_', ' ')} ({printable(one.scope)})" for one in refused[1:])
        received += f"; it also fails {name_some(tuple(others))}"
    return f"{reference} {received}", expected


def _describe_metric(first: Verdict, champion: str | None, promotion: PromotionSpec) -> tuple[str, str]:
    scope = "" if first.scope == "all" else f" on {printable(first.scope)}"
    name = first.bar.replace("_", " ")
    verb = f"{first.note}, which is" if first.note else "has"
    received = f"{verb} {'an' if name[0] in 'ai' else 'a'} {name} of {_number(first.value)}{scope}"
    expected = first.limit
    if first.champion is not None:
        received += f", and {champion} ({promotion.alias}) has {_number(first.champion)}"
        low, high = first.interval or (0.0, 0.0)
        confidence = 2 * promotion.confidence - 1
        expected = f"a {first.limit} (the {confidence:.0%} interval is {low:.4f} to {high:.4f})"
    elif first.interval is not None:
        received += f" ({first.interval[0]:.4f} to {first.interval[1]:.4f})"
    received += f" ({first.images:,} test images)" if first.images else ""
    return received, expected


def _describe_checks(first: Verdict, champion: str | None, promotion: PromotionSpec) -> tuple[str, str]:
    return first.note, first.limit


def _describe_changes(first: Verdict, champion: str | None, promotion: PromotionSpec) -> tuple[str, str]:
    low, high = first.interval or (0.0, 0.0)
    return (
        f"gives {first.value or 0.0:.2%} of the last production batch another label than {champion} "
        f"({promotion.alias}): 95% interval {low:.2%} to {high:.2%}, from {first.images:,} images",
        f"{first.limit} of the batch",
    )


_WORDS = {"permanent_checks": _describe_checks, "changed_labels": _describe_changes}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}"


def _missing_classes(labels: Sequence[str], wanted: Sequence[str]) -> list[str]:
    known = {normalize_label(name) for name in labels}
    return [name for name in wanted if normalize_label(name) not in known]
