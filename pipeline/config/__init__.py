"""The types of a recipe, which configures a retraining run and is validated before anything runs.

Every type is frozen and rejects unknown keys. `pixelmill recipes explain` and the Prefect form show the
descriptions of the fields. `pixelmill.pipeline.recipes` finds and reads the files.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pixelmill.pipeline.config.augmentation import AugmentationSpec
from pixelmill.pipeline.config.promotion import Bar, PromotionSpec
from pixelmill.pipeline.config.sources import (
    ArchiveSource,
    Cifar10Source,
    Cifar100Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
    OwnImages,
    ParquetSource,
    TableSource,
    name_after_folder,
)
from pixelmill.pipeline.config.training import HeadSpec, LearningRate, TrainingSpec
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.layers import ModelSpec
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.part import Number, Part, Positive, Share

__all__ = [
    "ArchiveSource",
    "AugmentationSpec",
    "Bar",
    "CardSpec",
    "Cifar10Source",
    "Cifar100Source",
    "DatasetSource",
    "DigitsSource",
    "EvaluationSpec",
    "ExportFormat",
    "ExportSpec",
    "FashionMnistSource",
    "Float16Spec",
    "FolderSource",
    "HeadSpec",
    "ImageSpec",
    "Int8Spec",
    "LearningRate",
    "MnistSource",
    "ModelSpec",
    "OwnImages",
    "ParquetSource",
    "PromotionSpec",
    "Recipe",
    "ReducedPrecision",
    "TableSource",
    "TrainingSpec",
    "VariantSpec",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ReducedPrecision = Literal["fp16", "int8"]
ExportFormat = Literal["onnx", "litert", "openvino", "triton", "ort"]


class ImageSpec(Part):
    """The tensor that every image is converted to: uint8 [height, width, channels]."""

    height: Positive = Field(description="In pixels.")
    width: Positive = Field(description="In pixels.")
    channels: Literal[1, 3] = Field(description="1: greyscale; 3: red, green and blue.")
    resize: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="How an image of another aspect ratio is resized: stretched, cropped around its centre, "
        "or padded with the background.",
    )
    background: Annotated[int, Field(ge=0, le=255, strict=True)] = Field(
        default=255, description="Grey level of transparent pixels and padding."
    )
    storage: Literal["raw", "jpeg"] = Field(
        default="raw",
        description="How prepared images are kept on disk: raw, or as JPEG of quality 95, which takes "
        "about a tenth of the space and changes the pixels slightly.",
    )

    def preprocessing(self) -> dict[str, int | str]:
        """The fields that decide which tensor an image becomes; all but `storage`."""
        return self.model_dump(exclude={"storage"})


class EvaluationSpec(Part):
    """The content of the evaluation report, and what is made of the probabilities."""

    worst_mistakes: Annotated[int, Field(ge=0, le=500, strict=True)] = Field(
        default=24, description="Number of most confident mistakes to show; 0: no images at all."
    )
    robustness_images: Annotated[int, Field(ge=0, le=10_000, strict=True)] = Field(
        default=300,
        description="Number of test images that are changed (shifted, rotated, compressed and so on) to "
        "measure how much the predictions depend on it; fewer for a large network, 0: none.",
    )
    inside: bool = Field(
        default=True,
        description="Whether to draw what the network sees in a few test images: kernels, feature maps, "
        "receptive fields and class activation maps.",
    )
    calibration: Literal["none", "temperature"] = Field(
        default="none",
        description="Whether the probabilities are corrected by a temperature, fitted on the validation "
        "images and put into the exported file. It is not used if it makes the calibration error on the test "
        "images larger.",
    )
    precision: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="The wanted share of right predictions among those that are accepted without a person's "
        "look, such as 0.99. Thresholds for it are fitted on the validation images, and scoring writes "
        "`accept` or `review` for every image.",
    )


class VariantSpec(Part):
    """How much a reduced-precision variant may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(description="Share of the test images whose top-1 class may differ.")
    max_accuracy_drop: Share = Field(default=0.005, description="Maximum drop in accuracy.")


class Float16Spec(VariantSpec):
    """How much the float16 variant may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(
        default=0.005, description="Share of the test images whose top-1 class may differ."
    )


class Int8Spec(VariantSpec):
    """How the int8 variant is calibrated, and how much it may differ from `model.onnx` on the test images."""

    max_flip_fraction: Share = Field(
        default=0.01, description="Share of the test images whose top-1 class may differ."
    )
    calibration_images: Positive = Field(
        default=512, description="Number of training images used to calibrate the ranges of the activations."
    )


class ExportSpec(Part):
    """The export to ONNX, and its comparison with Keras over all test images at every batch size listed."""

    opset: Literal[13, 14, 15, 16, 17, 18] = Field(default=17, description="ONNX opset of the file.")
    runtime_version: str | None = Field(
        default=None,
        description="The oldest version of onnxruntime that must load the file, such as 1.14; it may require "
        "a lower opset than `opset`.",
    )
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=2)] = Field(
        default=(1, 64),
        description="Batch sizes at which the file is compared with Keras; at least two different ones.",
    )
    max_abs_difference: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="Maximum absolute difference from any probability of Keras. By default it is derived "
        "from the rounding error of the model itself.",
    )
    tie_margin: Annotated[Number, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="If two probabilities of Keras differ by less, a different top-1 class between them is "
        "accepted. By default it is derived from the rounding error.",
    )
    variants: tuple[ReducedPrecision, ...] = Field(
        default=(),
        description="Reduced-precision variants to export besides model.onnx, each with its own limits.",
    )
    formats: tuple[ExportFormat, ...] = Field(
        default=("onnx",),
        description="The formats of the model. `model.onnx` is always written; the other files are made from "
        "it or, for `litert`, from the Keras model, and published if they predict the same.",
    )
    embeddings: bool = Field(
        default=False,
        description="Whether to export model.embeddings.onnx as well, which also gives the input of the last "
        "dense layer.",
    )
    fp16: Float16Spec = Float16Spec()
    int8: Int8Spec = Int8Spec()
    licence: str = Field(default="unspecified", description="Licence of the model; recorded in the bundle.")

    @field_validator("batch_sizes")
    @classmethod
    def has_different_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Require at least two sizes, to prove that the batch dimension is dynamic."""
        if len(set(sizes)) < 2:
            raise ValueError("two different batch sizes")
        return sizes

    @field_validator("variants")
    @classmethod
    def names_each_once(cls, variants: tuple[ReducedPrecision, ...]) -> tuple[ReducedPrecision, ...]:
        """Reject duplicate variants."""
        if len(set(variants)) < len(variants):
            raise ValueError("each variant once")
        return variants

    @field_validator("formats")
    @classmethod
    def begins_with_onnx(cls, formats: tuple[ExportFormat, ...]) -> tuple[ExportFormat, ...]:
        """Reject duplicate formats, and list the format that is always written."""
        if len(set(formats)) < len(formats):
            raise ValueError("each format once")
        return ("onnx", *(name for name in formats if name != "onnx"))


class CardSpec(Part):
    """What only the owner of the model knows; it goes into the model card of every bundle."""

    intended_use: str = Field(
        default="", description="What the model is for, and for whom; Markdown, in a few sentences."
    )
    limits: str = Field(
        default="", description="What it is not for, and where it is known to fail; Markdown."
    )


class Recipe(Part):
    """The configuration of a retraining run, from the data to the promotion."""

    name: Name = Field(
        description="The model's name in the registry. It is optional for a dataset of your own: the model "
        "is then named after the dataset's folder, table or archive."
    )
    dataset: DatasetSource
    image: ImageSpec
    model: ModelSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    promotion: PromotionSpec = PromotionSpec()
    card: CardSpec = CardSpec()

    @model_validator(mode="before")
    @classmethod
    def is_named_after_its_folder(cls, content: object) -> object:
        """Name a recipe without a name after the folder, table or archive of its dataset."""
        if not isinstance(content, dict) or "name" in content:
            return content
        dataset = content.get("dataset")
        fields = dataset.model_dump() if isinstance(dataset, Part) else dataset
        if (
            isinstance(fields, dict)
            and fields.get("source") in ("folder", "table", "archive", "parquet")
            and isinstance(fields.get("path"), str)
        ):
            return {**content, "name": name_after_folder(fields["path"])}
        return content

    @field_validator("training")
    @classmethod
    def has_colors_to_change(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        """Reject changes of the colour of greyscale images."""
        image, changes = info.data.get("image"), training.augmentation.for_color
        if isinstance(image, ImageSpec) and image.channels == 1 and changes:
            name, value = next(iter(changes.items()))
            raise PydanticCustomError(
                "no_colors",
                "0 for images without colour, as image.channels is 1",
                {"key": f"training.augmentation.{name}", "value": value},
            )
        return training

    @model_validator(mode="after")
    def has_features_for_the_head(self) -> "Recipe":
        """Require an application whose output the first phase is trained on."""
        if self.training.head is not None and not isinstance(self.model.layers[0], Application):
            raise ValueError("no training.head without an application as the first layer")
        return self

    @model_serializer(mode="wrap", when_used="json")
    def without_passwords(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the passwords in addresses out of what is written to manifests and shown."""
        content: dict[str, Any] = _without_passwords(write(self))
        return content


def _without_passwords(content: Any) -> Any:
    if isinstance(content, str):
        return without_passwords(content)
    if isinstance(content, dict):
        return {key: _without_passwords(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_passwords(value) for value in content]
    return content
