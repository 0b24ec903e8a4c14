"""What passes from layer to layer, and the row that the table of a network gives each."""

from dataclasses import dataclass

from pixelmill.pipeline.layers.windows import Pair, ReceptiveField

Volume = tuple[int, ...]
"""(height, width, depth), or (units,) once flattened or pooled over the whole image."""


@dataclass(frozen=True)
class Features:
    """What leaves a layer, per image.

    Attributes:
        volume: How many numbers.
        grid: How many different places of the image they stand for; a flattened volume keeps its own.
        field: The pixels behind a place; None behind a layer that is not looked into.
    """

    volume: Volume
    grid: Pair
    field: ReceptiveField | None

    @property
    def is_flat(self) -> bool:
        """Whether the numbers stand in a row."""
        return len(self.volume) == 1


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network, in numbers, per image.

    Attributes:
        position: Where the recipe lists it: `3`, or `3.0` for the first layer of the block at 3.
        layer: Its kind.
        settings: What the recipe says of it, in words.
        output: The volume that leaves it.
        parameters: The numbers it learns or keeps.
        multiply_adds: Products of an input and a weight, each added to a sum. None where not known. Biases,
            normalisation (which the export folds into convolutions), activation and pooling count none.
        field: The input pixels that can change a place of its output; None where not known.
        fully_connected: The parameters of a fully connected layer between the same volumes, for a layer
            that shares its own among places.
    """

    position: str
    layer: str
    settings: str
    output: Volume
    parameters: int
    multiply_adds: int | None
    field: ReceptiveField | None
    fully_connected: int | None


Trace = tuple[list[LayerSummary], Features]
"""The rows of some layers, and what leaves the last."""


def describe_volume(volume: Volume) -> str:
    """For example `32x32x3`."""
    return "x".join(map(str, volume))
