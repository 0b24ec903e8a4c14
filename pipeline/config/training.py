"""The training settings of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from pixelmill.pipeline.config.augmentation import AugmentationSpec
from pixelmill.pipeline.part import Number, Part, Positive, WeightsSource

ClassWeights = Literal["none", "balanced"]
Loss = Literal["cross_entropy", "focal"]


class LearningRate(Part):
    """The learning rate schedule."""

    schedule: Literal["cosine", "one_cycle", "constant"] = Field(
        default="cosine",
        description="cosine: linear warmup to the peak, then cosine decay to zero; one_cycle: starts lower, "
        "rises and falls along half cosines and ends near zero; constant: the peak throughout.",
    )
    peak: Annotated[Number, Field(gt=0)] = Field(default=0.01, description="The highest learning rate.")
    find: bool = Field(
        default=False,
        description="Replace the peak by one found before the training: a few steps with a rising learning "
        "rate show where the loss falls fastest.",
    )
    warmup_fraction: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.2, description="Share of the steps during which the learning rate rises to its peak."
    )


class HeadSpec(Part):
    """The first phase of transfer learning: only the layers after the application are trained.

    Everything before their first weights is computed once for all images, without augmentation, and kept in
    the store. The second phase trains all layers that are not frozen, for `training.epochs`.
    """

    epochs: Positive = Field(description="Passes over the training images in the first phase.")
    peak: Annotated[Number, Field(gt=0)] = Field(
        default=0.001, description="The highest learning rate of the first phase."
    )


class TrainingSpec(Part):
    """How the network is trained."""

    epochs: Positive = Field(description="Passes over the training images.")
    batch_size: Positive = Field(default=128, description="Images per step.")
    initialization: Literal["he_normal", "dirac"] = Field(
        default="he_normal",
        description="Initial kernels of the convolutions: he_normal is random, dirac preserves as many "
        "channels as possible, as in PyTorch.",
    )
    weights: WeightsSource | None = Field(
        default=None,
        description="null: random initial weights, or those of the application; a .keras file, its URL with "
        "#sha256=HASH, the folder of a bundle or name@alias: layers of equal name and shape start with its "
        "weights.",
    )
    head: HeadSpec | None = Field(
        default=None, description="null: one phase; otherwise the first of two phases of transfer learning."
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw", description="AdamW, or SGD with Nesterov momentum."
    )
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        default=0.001, description="Decoupled weight decay of the optimizer, as defined by Keras."
    )
    learning_rate: LearningRate = LearningRate()
    clip_norm: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="Largest norm of the gradient of all weights together; a longer one is scaled down.",
    )
    accumulate_steps: Positive = Field(
        default=1,
        description="Number of steps whose mean gradient makes one update of the weights, as if batches were "
        "so many times larger.",
    )
    loss: Loss = Field(
        default="cross_entropy",
        description="focal: images that are predicted well count less, in the training loss; validation is "
        "measured in cross-entropy all the same.",
    )
    focal_gamma: Annotated[Number, Field(ge=0, le=10)] = Field(
        default=2.0,
        description="How much less, for the focal loss: each term of the cross-entropy is multiplied by "
        "(1 - probability) to this power; 0 is the cross-entropy itself.",
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of each label that is distributed over all classes."
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="balanced: every class has the same share of the training loss, however few images it "
        "has; none: every image has.",
    )
    ema_momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Momentum of the exponential moving average of the weights, which is used as the model; "
        "0 turns averaging off.",
    )
    early_stopping: Positive | None = Field(
        default=None,
        description="Number of epochs without a lower validation loss after which training stops; the "
        "weights with the lowest validation loss are kept.",
    )
    max_minutes: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="Time for the training. After each epoch, the learning rate schedule is fitted to as "
        "many epochs as there is time for, up to `epochs`.",
    )
    augmentation: AugmentationSpec = AugmentationSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = Field(
        default=0, description="Seed of all random numbers: initial weights, shuffling, augmentation."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="auto uses a GPU if there is one; gpu fails without one."
    )
    gpus: Positive | Literal["all"] = Field(default=1, description="Number of GPUs that share each batch.")
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="auto",
        description="Keras dtype policy; auto is mixed_float16 on a GPU and float32 on a CPU.",
    )
    jit_compile: Literal["auto"] | bool = Field(
        default="auto", description="Compile with XLA; auto enables it on a GPU and disables it on a CPU."
    )
    steps_per_execution: Literal["auto"] | Positive = Field(
        default="auto", description="Steps per call into TensorFlow; auto is 16 on a GPU and 1 on a CPU."
    )
