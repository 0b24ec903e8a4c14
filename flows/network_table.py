"""The summary of a network as a text table, one line per layer."""

from collections.abc import Sequence

from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.layers import LayerSummary, describe_volume

_HEADINGS = ("", "layer", "output", "parameters", "multiply-adds", "receptive field", "stride")
_NUMBERS = range(2, len(_HEADINGS))


def render_network(image: tuple[int, int, int], rows: Sequence[LayerSummary]) -> str:
    """Render a line per layer, the totals, and the savings from parameter sharing."""
    cells = [
        ("", "image", describe_volume(image), "", "", "", ""),
        *(_cells(row) for row in rows),
        ("", "all", "", _count(total_parameters(rows)), _count(total_multiply_adds(rows)), "", ""),
    ]
    return "\n".join([render_table(cells, _HEADINGS, _NUMBERS), "", *_notes(image, rows)])


def total_parameters(rows: Sequence[LayerSummary]) -> int:
    """The number of parameters of a network, trainable or not."""
    return sum(row.parameters for row in rows)


def total_multiply_adds(rows: Sequence[LayerSummary]) -> int | None:
    """The number of multiply-adds per image; None if it is unknown for a layer."""
    counts = [row.multiply_adds for row in rows]
    return None if None in counts else sum(count or 0 for count in counts)


def _cells(row: LayerSummary) -> tuple[str, ...]:
    name = f"{row.layer}: {row.settings}" if row.settings else row.layer
    flat = len(row.output) == 1
    return (
        row.position,
        name,
        describe_volume(row.output),
        _count(row.parameters),
        _count(row.multiply_adds),
        "unknown" if row.field is None else describe_volume(row.field.size),
        "" if row.field is None or flat else describe_volume(row.field.stride),
    )


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}" if number else ""


def _notes(image: tuple[int, int, int], rows: Sequence[LayerSummary]) -> list[str]:
    sharing = [row for row in rows if row.fully_connected is not None]
    notes = []
    if sharing:
        shared = total_parameters(sharing)
        full = sum(row.fully_connected or 0 for row in sharing)
        notes += [
            f"Kernels have {shared:,} parameters. Fully connected layers between the same volumes would have",
            f"{full:,}: {full / shared:,.0f} times as many.",
        ]
    sizes = [row.field.size for row in rows if row.field is not None]
    if any(height > image[0] or width > image[1] for height, width in sizes):
        notes.append("A receptive field larger than the image extends into the padding.")
    if any(row.multiply_adds is None for row in rows):
        notes.append("The layers inside an application are not analyzed.")
    return notes
