"""The page of the gate: every bar with its value, interval and verdict, in one self-contained file."""

from dataclasses import dataclass
from typing import Literal

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.promotion.bars import Decision, Verdict
from pixelmill.pipeline.promotion.judgement import Judgement
from pixelmill.pipeline.templates import open_templates

_TEMPLATE = "gate.html.jinja"
_ORDER: dict[Decision, int] = {"refused": 0, "not judged": 1, "passed": 2}
_MAX_CHANGES = 20
_UNITS: dict[str, Literal["bytes", "rate"]] = {"model_bytes": "bytes", "images_per_second": "rate"}


@dataclass(frozen=True)
class Plot:
    """Where a drop lies, as positions from 0 to 100 on a scale from better to worse.

    Attributes:
        low: The lower end of its interval.
        high: The upper end.
        drop: The drop itself.
        zero: No drop.
        limit: The largest drop that is accepted.
    """

    low: float
    high: float
    drop: float
    zero: float
    limit: float


@dataclass(frozen=True)
class ShownBar:
    """A bar as text for the page; `plot` only for a drop."""

    bar: str
    scope: str
    verdict: Decision
    value: str
    champion: str
    interval: str
    limit: str
    images: str
    detectable: str
    note: str
    plot: Plot | None


def render_gate(judgement: Judgement) -> str:
    """Render the page as HTML."""
    environment = open_templates("pixelmill.pipeline.promotion")
    environment.finalize = _shown
    ordered = sorted(judgement.verdicts, key=lambda verdict: _ORDER[verdict.verdict])
    verdicts = [verdict.verdict for verdict in judgement.verdicts]
    preview = judgement.preview
    page = environment.get_template(_TEMPLATE).render(
        judgement=judgement,
        bars=[_show(verdict) for verdict in ordered],
        counts={verdict: verdicts.count(verdict) for verdict in _ORDER},
        confidence=f"{2 * judgement.confidence - 1:.0%}",
        overruling=judgement.overruling().strip("`"),
        smallest_drop=_amount(judgement.smallest_drop),
        preview=preview,
        changes=preview.changes[:_MAX_CHANGES] if preview else (),
        further_changes=max(len(preview.changes) - _MAX_CHANGES, 0) if preview else 0,
        percent=lambda value: f"{value:.1%}",
        made_at=now(),
        pixelmill_version=__version__,
    )
    # A file's name may not be valid text, but the page must be valid UTF-8.
    return page.encode("utf-8", "backslashreplace").decode()


def _show(verdict: Verdict) -> ShownBar:
    unit = _UNITS.get(verdict.bar)
    is_drop = verdict.p_value is not None
    interval = ""
    if verdict.interval is not None and verdict.interval[0] < verdict.interval[1]:
        interval = " to ".join(_amount(end, unit, signed=is_drop) for end in verdict.interval)
    return ShownBar(
        bar=verdict.bar.replace("_", " "),
        scope="all images" if verdict.scope == "all" else verdict.scope,
        verdict=verdict.verdict,
        value=_amount(verdict.value, unit),
        champion=_amount(verdict.champion, unit),
        interval=interval,
        limit=verdict.limit,
        images=f"{verdict.images:,} image{'s' * (verdict.images != 1)}" if verdict.images else "",
        detectable=_amount(verdict.detectable) if is_drop else "",
        note=verdict.note,
        plot=_plot(verdict) if is_drop else None,
    )


def _plot(verdict: Verdict) -> Plot | None:
    if verdict.interval is None or verdict.value is None or verdict.champion is None:
        return None
    low, high = verdict.interval
    drop = verdict.champion - verdict.value
    limit = verdict.max_drop or 0.0
    if verdict.bar == "loss":
        drop = -drop
    start, end = min(low, 0.0), max(high, limit, 0.0)
    margin = max((end - start) * 0.08, 1e-9)
    width = end - start + 2 * margin

    def place(value: float) -> float:
        return round(100 * min(max((value - start + margin) / width, 0.0), 1.0), 2)

    return Plot(place(low), place(high), place(drop), place(0.0), place(limit))


def _amount(value: float | None, unit: Literal["bytes", "rate"] | None = None, signed: bool = False) -> str:
    if value is None:
        return ""
    if unit is not None:
        return f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.0f}/s"
    return f"{value:{'+' if signed else ''}.4f}"


def _shown(value: object) -> object:
    """A value as shown on the page: names of files and classes may hold any character."""
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return printable(value)
