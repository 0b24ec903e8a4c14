"""The page of a comparison of two versions, in one self-contained file."""

import difflib
from collections.abc import Iterator, Sequence

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.promotion.model_comparison import MAX_PICTURES, ComparedValue, ModelComparison, Range
from pixelmill.pipeline.templates import open_templates

_TEMPLATE = "comparison.html.jinja"


def render_comparison(comparison: ModelComparison) -> str:
    """Render the page as HTML."""
    environment = open_templates("pixelmill.pipeline.promotion")
    environment.finalize = _shown
    page = environment.get_template(_TEMPLATE).render(
        comparison=comparison,
        a=comparison.a,
        b=comparison.b,
        right=comparison.right(),
        layers=list(pair_layers(comparison.a.layers, comparison.b.layers)),
        shown=comparison.different[:MAX_PICTURES],
        verdict=describe_difference,
        made_at=now(),
        pixelmill_version=__version__,
    )
    # A file's name may not be valid text, but the page must be valid UTF-8.
    return page.encode("utf-8", "backslashreplace").decode()


def describe_difference(value: ComparedValue) -> str:
    """Which version is better, if the interval of the difference says so."""
    if value.difference_interval is None:
        return "no interval of the difference"
    low, high = value.difference_interval
    if low <= 0 <= high:
        return "no difference shown"
    is_loss = value.name == "loss"
    return "B is better" if (low > 0) != is_loss else "A is better"


def format_range(ends: Range, signed: bool = False) -> str:
    """An interval as text."""
    sign = "+" if signed else ""
    return f"{ends[0]:{sign}.4f} to {ends[1]:{sign}.4f}"


def pair_layers(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """The layers of two networks side by side, and whether they are the same; empty where one has none."""
    for kind, a_from, a_to, b_from, b_to in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        length = max(a_to - a_from, b_to - b_from)
        for at in range(length):
            left = a[a_from + at] if a_from + at < a_to else ""
            right = b[b_from + at] if b_from + at < b_to else ""
            yield left, right, kind == "equal"


def _shown(value: object) -> object:
    """A value as shown on the page: names of files and classes may hold any character."""
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return printable(value)
