"""How a recipe's network is trained."""

from typing import Annotated, Literal

from pydantic import Field

from pixelmill.pipeline.config.part import Number, Part, Positive


class LearningRate(Part):
    """The learning rate over all steps."""

    schedule: Literal["cosine", "one_cycle", "constant"] = Field(
        default="cosine",
        description="cosine: a linear warm-up to the peak, then a cosine decay to zero; one_cycle: starts "
        "lower, rises and falls along half cosines and ends near zero; constant: the peak throughout.",
    )
    peak: Annotated[Number, Field(gt=0)] = Field(default=0.01, description="The highest learning rate.")
    warmup_fraction: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.2, description="Share of the steps in which the learning rate rises to its peak."
    )


class AugmentationSpec(Part):
    """Random changes of the training images, drawn anew every epoch; zero and `none` leave one out."""

    shift: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="Largest shift either way, as a share of height and width; by whole pixels unless the "
        "image is also rotated, zoomed, sheared or bent.",
    )
    rotation: Annotated[Number, Field(ge=0, le=180)] = Field(
        default=0.0, description="Largest rotation either way, in degrees."
    )
    zoom: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="Largest zoom in or out, as a share of the size."
    )
    shear: Annotated[Number, Field(ge=0, le=45)] = Field(
        default=0.0, description="Largest shear either way, in degrees."
    )
    elastic: Annotated[Number, Field(ge=0, le=0.2)] = Field(
        default=0.0,
        description="Elastic bending: the standard deviation of the smooth displacement, as a share of the "
        "sides; digits stay legible up to 0.03.",
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none",
        description="Axes along which an image is flipped, each with a probability of one half.",
    )
    cutout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Side of a square that is wiped out, as a share of the shorter side."
    )
    mixup: Annotated[Number, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="Images and labels are blended in pairs; the share is drawn from a beta distribution "
        "with this as both parameters. 0.2 is usual.",
    )


class TrainingSpec(Part):
    """How the network is trained."""

    epochs: Positive = Field(description="Passes over the training images.")
    batch_size: Positive = Field(default=128, description="Images per step.")
    initialization: Literal["he_normal", "dirac"] = Field(
        default="he_normal",
        description="First kernels of the convolutions: he_normal draws them at random, dirac lets them pass "
        "on as many channels as they can, as in PyTorch.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw", description="AdamW, or SGD with Nesterov momentum."
    )
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        default=0.001, description="Decoupled weight decay of the optimizer, as Keras defines it."
    )
    learning_rate: LearningRate = LearningRate()
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of each label's weight that is spread over all classes."
    )
    ema_momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Momentum of the exponential moving average of the weights that becomes the model; 0 "
        "takes the weights as they are.",
    )
    early_stopping: Positive | None = Field(
        default=None,
        description="Epochs without a lower validation loss after which training ends; the model is then "
        "that of the lowest validation loss.",
    )
    augmentation: AugmentationSpec = AugmentationSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = Field(
        default=0, description="Seed of everything random: first weights, order of images, augmentation."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="auto takes a GPU if there is one; gpu refuses to train without one."
    )
    gpus: Positive | Literal["all"] = Field(default=1, description="How many GPUs share each batch.")
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="auto",
        description="Keras's dtype policy; auto is mixed_float16 on a GPU and float32 on a CPU.",
    )
    jit_compile: Literal["auto"] | bool = Field(
        default="auto", description="Compilation with XLA; auto is on on a GPU and off on a CPU."
    )
    steps_per_execution: Literal["auto"] | Positive = Field(
        default="auto", description="Steps per call into TensorFlow; auto is 16 on a GPU and 1 on a CPU."
    )
