"""Recipes: what a retraining run is asked to do, checked before anything runs.

Every type is frozen and refuses unknown keys. The fields' descriptions are what `pixelmill recipes explain`
and Prefect's form show. `pixelmill.pipeline.recipes` finds and reads the files.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pixelmill.pipeline.config.layers import ModelSpec
from pixelmill.pipeline.config.part import Number, Part, Positive, Share
from pixelmill.pipeline.config.sources import (
    Cifar10Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
    name_after_folder,
)
from pixelmill.pipeline.config.training import AugmentationSpec, LearningRate, TrainingSpec

__all__ = [
    "AugmentationSpec",
    "Cifar10Source",
    "DatasetSource",
    "DigitsSource",
    "EvaluationSpec",
    "ExportSpec",
    "FashionMnistSource",
    "Float16Spec",
    "FolderSource",
    "ImageSpec",
    "Int8Spec",
    "LearningRate",
    "MnistSource",
    "ModelSpec",
    "PromotionSpec",
    "Recipe",
    "ReducedPrecision",
    "TrainingSpec",
    "VariantSpec",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
ReducedPrecision = Literal["fp16", "int8"]


class ImageSpec(Part):
    """The tensor that every image becomes: uint8 [height, width, channels]."""

    height: Positive = Field(description="In pixels.")
    width: Positive = Field(description="In pixels.")
    channels: Literal[1, 3] = Field(description="1: grey; 3: red, green and blue.")
    resize: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="What happens to an image of another aspect ratio: it is stretched, its centre is "
        "cropped, or it is padded with the background.",
    )
    background: Annotated[int, Field(ge=0, le=255, strict=True)] = Field(
        default=255, description="Grey level behind transparent pixels and in the padding."
    )


class EvaluationSpec(Part):
    """What the report shows of the test images."""

    worst_mistakes: Annotated[int, Field(ge=0, le=500, strict=True)] = Field(
        default=24, description="How many of the most confident wrong predictions are shown."
    )


class VariantSpec(Part):
    """How far a variant of fewer bits may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(description="Share of the test images whose top-1 class may differ.")
    max_accuracy_drop: Share = Field(default=0.005, description="By how much the accuracy may be lower.")


class Float16Spec(VariantSpec):
    """How far the float16 variant may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(
        default=0.005, description="Share of the test images whose top-1 class may differ."
    )


class Int8Spec(VariantSpec):
    """How the int8 variant is made, and how far it may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(
        default=0.01, description="Share of the test images whose top-1 class may differ."
    )
    calibration_images: Positive = Field(
        default=512, description="Training images from which the ranges of the activations are taken."
    )


class ExportSpec(Part):
    """The gate between Keras and ONNX, over all test images at every batch size listed."""

    opset: Literal[13, 14, 15, 16, 17, 18] = Field(default=17, description="ONNX opset of the file.")
    runtime_version: str | None = Field(
        default=None,
        description="The oldest onnxruntime that has to load the file, such as 1.14; it may need an older "
        "opset than `opset`.",
    )
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=2)] = Field(
        default=(1, 64), description="Batch sizes at which the file is compared with Keras; two that differ."
    )
    max_abs_difference: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="Every probability has to differ from Keras's by less. Derived from the rounding error "
        "of the model itself where it is not given.",
    )
    tie_margin: Annotated[Number, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="Where Keras's probabilities of two classes lie closer together, another top-1 class is "
        "no difference. Derived from the rounding error where it is not given.",
    )
    variants: tuple[ReducedPrecision, ...] = Field(
        default=(), description="Variants of fewer bits to export beside model.onnx, each with a gate."
    )
    fp16: Float16Spec = Float16Spec()
    int8: Int8Spec = Int8Spec()
    licence: str = Field(default="unspecified", description="Of the model; recorded in the bundle.")

    @field_validator("batch_sizes")
    @classmethod
    def has_different_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse sizes that prove nothing about the batch dimension."""
        if len(set(sizes)) < 2:
            raise ValueError("two different batch sizes")
        return sizes

    @field_validator("variants")
    @classmethod
    def names_each_once(cls, variants: tuple[ReducedPrecision, ...]) -> tuple[ReducedPrecision, ...]:
        """Refuse a variant named twice."""
        if len(set(variants)) < len(variants):
            raise ValueError("each variant once")
        return variants


class PromotionSpec(Part):
    """What a version must reach on the test images before `alias` points to it."""

    alias: Alias = Field(default="champion", description="The alias that the new version gets.")
    min_accuracy: Share = Field(default=0.0, description="The lowest accuracy.")
    min_balanced_accuracy: Share | None = Field(
        default=None,
        description="The lowest mean of the classes' recalls. null: better than always naming one class, "
        "which reaches 1 / classes (the lower end of its 95% interval must be above that). 0: no limit.",
    )
    min_recall: Share = Field(default=0.0, description="The lowest recall of any class.")
    max_accuracy_drop: Share = Field(
        default=0.005,
        description="How much lower the accuracy may be than that of the version the alias points to now, "
        "which must have the same classes.",
    )


class Recipe(Part):
    """One retraining run, from the data to the promotion."""

    name: Name = Field(
        description="The model's name in the registry. It may be left out where dataset.source is folder: "
        "the model is then named after the dataset's folder."
    )
    dataset: DatasetSource
    image: ImageSpec
    model: ModelSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    promotion: PromotionSpec = PromotionSpec()

    @model_validator(mode="before")
    @classmethod
    def is_named_after_its_folder(cls, content: object) -> object:
        """Name a recipe that has no name after the folder of its dataset."""
        if not isinstance(content, dict) or "name" in content:
            return content
        dataset = content.get("dataset")
        fields = dataset.model_dump() if isinstance(dataset, Part) else dataset
        if (
            isinstance(fields, dict)
            and fields.get("source") == "folder"
            and isinstance(fields.get("path"), str)
        ):
            return {**content, "name": name_after_folder(fields["path"])}
        return content
