"""The augmentation settings of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from pixelmill.pipeline.part import Number, Part, Share

Policy = Literal["none", "randaugment", "trivialaugment"]


class AugmentationSpec(Part):
    """Random augmentation of the training images, different in every epoch; zero and `none` turn it off."""

    shift: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="Maximum shift in either direction, as a share of height and width; by whole pixels "
        "unless the image is also rotated, zoomed, sheared, cropped or elastically deformed.",
    )
    rotation: Annotated[Number, Field(ge=0, le=180)] = Field(
        default=0.0, description="Maximum rotation in either direction, in degrees."
    )
    zoom: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="Maximum zoom in or out, as a share of the size."
    )
    shear: Annotated[Number, Field(ge=0, le=45)] = Field(
        default=0.0, description="Maximum shear in either direction, in degrees."
    )
    crop: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Random resized crop: the largest share of the area that is cut off before the rest, "
        "with an aspect ratio changed by up to 4/3, is resized to the whole image. 0.92 is common for "
        "photographs.",
    )
    elastic: Annotated[Number, Field(ge=0, le=0.2)] = Field(
        default=0.0,
        description="Elastic deformation: standard deviation of the smooth displacement, as a share of "
        "height and width; digits stay legible up to 0.03.",
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none",
        description="Directions in which an image is flipped, each with a probability of 0.5.",
    )
    policy: Policy = Field(
        default="none",
        description="randaugment: two random operations on each image, of a fixed strength; trivialaugment: "
        "one, of a random strength. The operations change geometry, colours and sharpness.",
    )
    policy_strength: Share | None = Field(
        default=None,
        description="Strength of the operations of `policy`, or the highest one; 1 is the strongest that the "
        "papers try. null: 0.3 for randaugment, 1 for trivialaugment.",
    )
    brightness: Share = Field(
        default=0.0, description="Maximum change of the brightness, as a share of every pixel's value."
    )
    contrast: Share = Field(
        default=0.0,
        description="Maximum change of the contrast, as a share of every pixel's difference from the mean.",
    )
    saturation: Share = Field(
        default=0.0,
        description="Maximum change of the saturation, as a share of every pixel's difference from grey; for "
        "colour images only.",
    )
    hue: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="Maximum change of the hue in either direction, as a share of the colour wheel; for "
        "colour images only.",
    )
    grey: Share = Field(
        default=0.0,
        description="Probability with which an image loses its colours; for colour images only.",
    )
    cutout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Side of the erased square, as a share of the shorter side."
    )
    erasing: Share = Field(
        default=0.0,
        description="Probability with which a random rectangle, 2% to 33% of an image, becomes noise.",
    )
    mixup: Annotated[Number, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="Images and labels are blended in pairs; the weight is drawn from a beta distribution "
        "with this value for both parameters. 0.2 is common.",
    )
    cutmix: Annotated[Number, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="A rectangle of each image comes from another, and the labels are mixed by its area; "
        "the share is drawn from a beta distribution with this value for both parameters. 1 is common. With "
        "mixup, each batch gets one of the two.",
    )

    @property
    def used(self) -> dict[str, float | str]:
        """The fields that turn an augmentation on, with their values."""
        values = self.model_dump(exclude={"policy_strength"})
        return {name: value for name, value in values.items() if value not in (0, "none")}

    @property
    def for_color(self) -> dict[str, float | str]:
        """Those of them that need an image with colours."""
        return {name: value for name, value in self.used.items() if name in _FOR_COLOR}


_FOR_COLOR = ("saturation", "hue", "grey")
