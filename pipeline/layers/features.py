"""The features between layers, and the row of each layer in a network's summary."""

from dataclasses import dataclass

from pixelmill.pipeline.layers.windows import Pair, ReceptiveField

Volume = tuple[int, ...]
"""(height, width, depth), or (units,) once flattened or pooled over the whole image."""


@dataclass(frozen=True)
class Features:
    """The output of a layer, per image.

    Attributes:
        volume: Its shape.
        grid: The number of spatial positions, as height and width; kept when the volume is flattened.
        field: The receptive field of a position; None if a previous layer is not analysed.
    """

    volume: Volume
    grid: Pair
    field: ReceptiveField | None

    @property
    def is_flat(self) -> bool:
        """Whether the volume is a vector."""
        return len(self.volume) == 1


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network, per image.

    Attributes:
        position: Its index in the recipe: `3`, or `3.0` for the first layer of the block at 3.
        layer: Its kind.
        settings: Its settings in the recipe, as text.
        output: The shape of its output.
        parameters: Number of parameters, trainable and non-trainable.
        multiply_adds: Number of multiply-add operations; None if unknown. Biases, batch normalization (which
            the export folds into convolutions), activation and pooling are not counted.
        field: The receptive field of a position of its output; None if unknown.
        fully_connected: Number of parameters of a fully connected layer between the same volumes, for a
            layer that shares weights among positions.
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
"""The rows of a sequence of layers, and the output of the last one."""


def describe_volume(volume: Volume) -> str:
    """For example `32x32x3`."""
    return "x".join(map(str, volume))
