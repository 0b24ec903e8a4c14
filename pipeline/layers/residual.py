"""Residual blocks."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.activation import Activation, ActivationFunction
from pixelmill.pipeline.layers.convolution import Convolution
from pixelmill.pipeline.layers.features import Features, LayerSummary, Trace, describe_volume
from pixelmill.pipeline.layers.kinds import SimpleLayer
from pixelmill.pipeline.layers.layer import LayerSpec, build_layers, trace_layers
from pixelmill.pipeline.layers.normalization import BatchNormalization
from pixelmill.pipeline.layers.windows import enclose


class Residual(LayerSpec):
    """A branch of layers whose output is added to the block's input.

    He et al., "Deep Residual Learning for Image Recognition" (2016), section 3.3, options A and B.
    """

    layer: Literal["residual"]
    layers: Annotated[
        tuple[Annotated[SimpleLayer, Field(discriminator="layer")], ...], Field(min_length=1)
    ] = Field(description="The layers of the branch.")
    shortcut: Literal["auto", "identity", "projection"] = Field(
        default="auto",
        description="identity adds the input unchanged; projection applies a 1x1 convolution with the "
        "branch's stride and batch normalization; auto is identity if the branch keeps the shape.",
    )
    activation: ActivationFunction | None = Field(default="relu", description="Applied to the sum.")

    def trace(self, features: Features, classes: int, position: str) -> Trace:
        """Summarize the layers of both paths, then their sum.

        Raises:
            RequestError: The two paths end in different volumes, or a layer does not accept its input.
        """
        rows, branch = trace_layers(self.layers, features, classes, f"{position}.")
        layers = self._shortcut_layers(features.volume, branch.volume)
        more, shortcut = trace_layers(layers, features, classes, f"{position}.shortcut.")
        if shortcut.volume != branch.volume:
            raise RequestError(
                f"model.layers.{position} (residual) adds {describe_volume(branch.volume)} from its branch "
                f"to {describe_volume(shortcut.volume)} from its shortcut",
                "equal volumes",
                "Keep the size of the branch with `padding: same`, or set `shortcut: projection`.",
            )
        field = None
        if branch.field is not None and shortcut.field is not None:
            field = enclose(branch.field, shortcut.field)
        row = LayerSummary(position, self.layer, self.settings, branch.volume, 0, 0, field, None)
        return [*rows, *more, row], Features(branch.volume, branch.grid, field)

    def build(self, tensor: Any, classes: int, position: str) -> Any:
        """Apply both paths, add them, and activate the sum."""
        import keras

        branch = build_layers(self.layers, tensor, classes, f"{position}.")
        layers = self._shortcut_layers(tensor.shape[1:], branch.shape[1:])
        shortcut = build_layers(layers, tensor, classes, f"{position}.shortcut.")
        total = keras.layers.Add(name=self.name_at(position))([branch, shortcut])
        if self.activation is None:
            return total
        return Activation(layer="activation", function=self.activation).build(total, classes, position)

    def _shortcut_layers(self, volume: Sequence[int], branch: Sequence[int]) -> tuple[SimpleLayer, ...]:
        """The layers of the shortcut, given the block's input volume and its branch's output volume."""
        equal = tuple(volume) == tuple(branch)
        if self.shortcut == "identity" or (self.shortcut == "auto" and equal) or len(branch) == 1:
            return ()
        stride = -(-volume[0] // branch[0])
        return (
            Convolution(layer="convolution", filters=branch[-1], kernel_size=1, stride=stride),
            BatchNormalization(layer="batch_normalization"),
        )
