"""What an audit of a dataset looks for, and what follows from it."""

from typing import Annotated, Literal

from pydantic import Field

from pixelmill.pipeline.part import Fraction, Number, Part

FindingKind = Literal[
    "unreadable",
    "duplicate",
    "near_duplicate",
    "contradiction",
    "leak",
    "imbalance",
    "odd_size",
    "odd_aspect_ratio",
    "dark",
    "bright",
    "blurred",
    "flat",
    "label_error",
]
Response = Literal["ignore", "warn", "stop"]
_Factor = Annotated[Number, Field(gt=1)]


class AuditSpec(Part):
    """What the audit looks for. For each kind of finding: ignore does not look for it, warn reports it, and
    stop ends the run with exit code 3.
    """

    unreadable: Response = Field(default="warn", description="Files that cannot be decoded.")
    duplicate: Response = Field(default="warn", description="Files with equal content.")
    near_duplicate: Response = Field(default="warn", description="Images that are nearly equal.")
    contradiction: Response = Field(
        default="warn", description="Files with equal content in different classes."
    )
    leak: Response = Field(
        default="warn", description="Equal or nearly equal images, or images of one group, in two splits."
    )
    imbalance: Response = Field(default="warn", description="Classes with few training images.")
    odd_size: Response = Field(default="warn", description="Files of an unusual size in pixels.")
    odd_aspect_ratio: Response = Field(
        default="warn", description="Files of an unusual ratio of the longer to the shorter side."
    )
    dark: Response = Field(default="warn", description="Images without bright pixels.")
    bright: Response = Field(default="warn", description="Images without dark pixels.")
    blurred: Response = Field(default="warn", description="Images without sharp edges.")
    flat: Response = Field(default="warn", description="Images of almost one colour.")
    label_error: Response = Field(
        default="warn",
        description="Images whose label is probably wrong: of validation and test, by confident learning on "
        "the predictions; of training, by cross-validation.",
    )
    label_error_below: Fraction = Field(
        default=0.5,
        description="The label of a training image is probably wrong if cross-validation gives it a lower "
        "probability than this.",
    )
    imbalance_factor: _Factor = Field(
        default=10.0, description="A class is small if the largest has this many times as many images."
    )
    size_factor: _Factor = Field(
        default=4.0,
        description="A size is odd if the geometric mean of its sides is this many times larger or smaller "
        "than the median.",
    )
    aspect_ratio_factor: _Factor = Field(
        default=2.5, description="An aspect ratio is odd if it is this many times larger than the median."
    )
    dark_below: Fraction = Field(
        default=0.25,
        description="An image is dark if 99% of its pixels have at most this grey level, 0 to 1.",
    )
    bright_above: Fraction = Field(
        default=0.75, description="An image is bright if 99% of its pixels have at least this grey level."
    )
    blurred_below: Fraction = Field(
        default=0.05, description="An image is blurred if its sharpness is below this share of the median."
    )
    flat_above: Fraction = Field(
        default=0.98,
        description="An image is flat if this share of its pixels lies within 16 of 256 grey levels.",
    )
