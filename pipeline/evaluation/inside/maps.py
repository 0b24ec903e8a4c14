"""The section on feature maps, with the receptive field of the strongest value of each layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelmill.pipeline.evaluation.inside.pictures import draw_map
from pixelmill.pipeline.layers import LayerSummary
from pixelmill.pipeline.layers.windows import ReceptiveField
from pixelmill.pipeline.training.activations import FeatureMaps, MapLayer, Values

MAX_LAYERS = 14
_FIRST_LAYERS = 6


@dataclass(frozen=True)
class Box:
    """The receptive field of one position in the image, in pixels; it may extend beyond the image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class DrawnMaps:
    """The feature maps of one layer for one image.

    Attributes:
        maps: One data URL for each channel shown, all drawn with the same limit.
        limit: The largest absolute value among them.
        strongest: The largest value among them.
        channel: Its channel.
        row: Its row in the feature map.
        column: Its column.
        box: Its receptive field; None if that is not known.
    """

    maps: list[str]
    limit: float
    strongest: float
    channel: int
    row: int
    column: int
    box: Box | None


@dataclass(frozen=True)
class MapSection:
    """The feature maps of one layer.

    Attributes:
        layer: The layer.
        settings: Its settings in the recipe, as text; empty within an application.
        size: Height and width of the maps.
        channels: Number of all channels.
        field: The receptive field of a position; None if it is not known.
        images: The maps of each image.
    """

    layer: MapLayer
    settings: str
    size: tuple[int, int]
    channels: int
    field: ReceptiveField | None
    images: list[DrawnMaps]


def choose_layers(layers: Sequence[MapLayer]) -> list[MapLayer]:
    """The first layers, and if there are too many, evenly spaced ones of the others up to the last."""
    if len(layers) <= MAX_LAYERS:
        return list(layers)
    others = np.linspace(_FIRST_LAYERS, len(layers) - 1, MAX_LAYERS - _FIRST_LAYERS).round().astype(int)
    return [*layers[:_FIRST_LAYERS], *(layers[at] for at in others)]


def find_fields(
    layers: Sequence[MapLayer], summaries: Sequence[LayerSummary]
) -> dict[str, ReceptiveField | None]:
    """The receptive field of each layer by its name in Keras.

    Args:
        layers: All map layers of the network, in the order of computation.
        summaries: The summary of the recipe's layers.
    """
    by_name = {keras_name(row): row.field for row in summaries}
    fields: dict[str, ReceptiveField | None] = {}
    field: ReceptiveField | None = ReceptiveField()
    for layer in layers:
        # An activation after a sum is not a layer of the recipe; it sees what the sum before it sees.
        known = layer.name in by_name or layer.kind == "activation"
        field = by_name.get(layer.name, field) if known and layer.nested is None else None
        fields[layer.name] = field
    return fields


def keras_name(row: LayerSummary) -> str:
    """The name in Keras of a layer of the recipe."""
    return f"{row.position.replace('.', '_')}_{row.layer}"


def draw_sections(
    found: Sequence[FeatureMaps],
    fields: dict[str, ReceptiveField | None],
    summaries: Sequence[LayerSummary],
) -> list[MapSection]:
    """Draw the feature maps of the chosen layers."""
    settings = {keras_name(row): row.settings for row in summaries}
    return [
        MapSection(
            layer=each.layer,
            settings=settings.get(each.layer.name, ""),
            size=(each.values.shape[1], each.values.shape[2]),
            channels=each.channels,
            field=fields[each.layer.name],
            images=[_draw(values, fields[each.layer.name]) for values in each.values],
        )
        for each in found
    ]


def _draw(values: Values, field: ReceptiveField | None) -> DrawnMaps:
    """Draw the maps of one image, float32 [height, width, channels shown].

    Raises:
        ValueError: A value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError("a feature map has NaN or infinity")
    limit = float(np.abs(values).max())
    row, column, channel = (int(at) for at in np.unravel_index(int(values.argmax()), values.shape))
    return DrawnMaps(
        maps=[draw_map(values[..., at], limit) for at in range(values.shape[-1])],
        limit=limit,
        strongest=float(values[row, column, channel]),
        channel=channel,
        row=row,
        column=column,
        box=locate(field, row, column) if field else None,
    )


def locate(field: ReceptiveField, row: int, column: int) -> Box:
    """The receptive field of the position (row, column)."""
    (height, width), (down, right), (top, left) = field.size, field.stride, field.start
    return Box(left + column * right, top + row * down, width, height)
