"""The bars of a promotion that compare with the version that the alias points to, image by image."""

from dataclasses import dataclass, replace

import numpy as np

from pixelmill.pipeline.config import Bar, PromotionSpec
from pixelmill.pipeline.evaluation.paired import (
    Drop,
    Level,
    PairedPredictions,
    drop_in_macro_recall,
    drop_in_mean,
    drop_in_share,
    holm,
)
from pixelmill.pipeline.promotion.bars import JudgedPredictions, Verdict, drops_of, scopes_of

_SEED = 0


@dataclass(frozen=True, eq=False)
class _Part:
    """The images on which one bar is judged."""

    bar: Bar
    scope: str
    pairs: PairedPredictions

    @property
    def images(self) -> int:
        return len(self.pairs.labels)


def judge_drops(
    new: JudgedPredictions, champion: JudgedPredictions, promotion: PromotionSpec
) -> list[Verdict]:
    """Judge whether a version is worse than the champion on the same test images.

    The p-values of all bars are adjusted together by Holm's method, so that a version that is as good as the
    champion is refused by chance with a probability of at most 1 - `confidence`.

    Args:
        new: The predictions of the version that is judged.
        champion: Those of the version that the alias points to, for the same images and classes.
        promotion: The accepted drops.
    """
    pairs = PairedPredictions(new.probabilities, champion.probabilities, new.labels)
    parts = [
        _Part(bar, scope, pairs.of(members))
        for bar in drops_of(promotion)
        for scope, members in scopes_of(bar, new.chosen(bar), new.labels, new.class_names)
    ]
    level = Level(1 - promotion.confidence, max(sum(part.images > 0 for part in parts), 1))
    drops = [measure_drop(part.pairs, part.bar, level) if part.images else None for part in parts]
    adjusted = iter(holm([drop.p_value for drop in drops if drop is not None]))
    return [
        _describe(part) if drop is None else _judge(part, drop, next(adjusted), level)
        for part, drop in zip(parts, drops, strict=True)
    ]


def measure_drop(pairs: PairedPredictions, bar: Bar, level: Level) -> Drop:
    """The drop in a bar's metric on the given images, of which there is at least one."""
    limit = bar.max_drop or 0.0
    rng = np.random.default_rng(_SEED)
    if bar.metric == "loss":
        return drop_in_mean(*pairs.losses(), limit, level, rng)
    if bar.metric == "balanced_accuracy":
        return drop_in_macro_recall(pairs, limit, level, rng)
    return drop_in_share(*pairs.correct(), limit, level)


def _describe(part: _Part) -> Verdict:
    kind = "increase" if part.bar.metric == "loss" else "drop"
    return Verdict(
        bar=part.bar.metric,
        scope=part.scope,
        images=part.images,
        value=None,
        interval=None,
        champion=None,
        limit=f"{kind} of at most {part.bar.max_drop:.4f}",
        verdict="not judged",
    )


def _judge(part: _Part, drop: Drop, p_value: float, level: Level) -> Verdict:
    return replace(
        _describe(part),
        value=drop.new,
        interval=(drop.low, drop.high),
        champion=drop.reference,
        verdict="refused" if p_value < level.alpha else "passed",
        p_value=p_value,
        max_drop=part.bar.max_drop,
        detectable=drop.detectable,
    )
