"""The promotion settings of a recipe: the bars that a new version has to pass before an alias moves to it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pixelmill.pipeline.part import Number, Part, Share, Text

Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Metric = Literal[
    "accuracy",
    "balanced_accuracy",
    "recall",
    "loss",
    "calibration_error",
    "model_bytes",
    "images_per_second",
]
GateBar = Metric | Literal["permanent_checks", "changed_labels"]
"""What a verdict is about: a metric, or one of the two bars that are not measured on the test images."""
# A drop needs the predictions of two models for the same images.
_WITH_DROP = ("accuracy", "balanced_accuracy", "recall", "loss")
FILE_METRICS = ("model_bytes", "images_per_second")
"""Metrics of the ONNX file, which are not measured on some of the images."""


class Bar(Part):
    """One further bar for a metric, on all test images or on a slice of them."""

    metric: Metric = Field(description="The metric that is measured on the test images.")
    at_least: Number | None = Field(default=None, description="Its lowest accepted value.")
    at_most: Number | None = Field(default=None, description="Its highest accepted value.")
    max_drop: Annotated[Number, Field(ge=0)] | None = Field(
        default=None,
        description="How much worse than the version that the alias points to it may be; the bar refuses if "
        "the drop is larger with `confidence`.",
    )
    of_class: Text | None = Field(
        default=None, description="For recall: the class. null: every class by itself."
    )
    slice: dict[Text, Text] = Field(
        default={},
        description="Only the test images with these values in the columns of the dataset's table: "
        "`{camera: north}`.",
    )

    @model_validator(mode="after")
    def is_one_bar(self) -> Self:
        """Require exactly one limit, which has to fit the metric."""
        limits = (self.at_least, self.at_most, self.max_drop)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError("exactly one of at_least, at_most and max_drop")
        if self.max_drop is not None and self.metric not in _WITH_DROP:
            raise ValueError(f"max_drop with one of {', '.join(_WITH_DROP)}")
        if self.of_class is not None and self.metric != "recall":
            raise ValueError("of_class with the metric recall")
        if self.slice and self.metric in FILE_METRICS:
            raise ValueError(f"no slice with {self.metric}")
        return self


class PromotionSpec(Part):
    """What a version must reach on the test images before `alias` points to it.

    Drops are measured against the version that the alias points to, which predicts the same test images, less
    those that it was trained on.
    """

    alias: Alias = Field(default="champion", description="The alias to assign to the new version.")
    min_accuracy: Share = Field(default=0.0, description="Minimum accuracy.")
    min_balanced_accuracy: Share | None = Field(
        default=None,
        description="Minimum balanced accuracy, the mean recall of the classes. null: better than always "
        "predicting one class, which reaches 1 / classes (the lower end of the 95% interval must be above "
        "that). 0: no limit.",
    )
    min_recall: Share = Field(default=0.0, description="Minimum recall of every class.")
    max_accuracy_drop: Share | None = Field(
        default=0.005, description="Accepted drop in accuracy. null: no limit."
    )
    max_balanced_accuracy_drop: Share | None = Field(
        default=0.005, description="Accepted drop in balanced accuracy. null: no limit."
    )
    max_recall_drop: Share | None = Field(
        default=0.005, description="Accepted drop in the recall of each class. null: no limit."
    )
    max_loss_increase: Annotated[Number, Field(ge=0)] | None = Field(
        default=None, description="Accepted increase of the loss, in nats. null: no limit."
    )
    max_changed_labels: Share | None = Field(
        default=None,
        description="Largest share of the last production batch that may get another label; refused only if "
        "the 95% interval, from a sample of the batch, is above it. null: no limit.",
    )
    confidence: Annotated[Number, Field(gt=0.5, lt=1)] = Field(
        default=0.95,
        description="A version is refused only if a drop is larger than accepted with this confidence, "
        "for all drops together.",
    )
    bars: tuple[Bar, ...] = Field(default=(), description="Further bars.")
