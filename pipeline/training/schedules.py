"""The optimizer and its learning rate schedule."""

import math
from collections.abc import Callable
from typing import Any

from pixelmill.pipeline.config import LearningRate, TrainingSpec
from pixelmill.pipeline.training.pacing import paced_schedule


def build_optimizer(training: TrainingSpec, steps: int) -> Any:
    """A Keras optimizer whose learning rate schedule ends after `steps`.

    With a time budget, the schedule has a pace: see `paced_schedule`.
    """
    schedule = _SCHEDULES[training.learning_rate.schedule](training.learning_rate, steps)
    if training.max_minutes is None or training.learning_rate.schedule == "constant":
        return optimizer_with(training, schedule)
    paced = paced_schedule(schedule)
    optimizer = optimizer_with(training, paced)
    # Variables that are attributes of the optimizer are part of its state, and so of the checkpoint.
    optimizer.schedule_anchor, optimizer.schedule_place, optimizer.schedule_pace = paced.variables
    return optimizer


def optimizer_with(training: TrainingSpec, learning_rate: Any) -> Any:
    """The optimizer of a recipe with a learning rate, which is a number or a Keras schedule."""
    import keras

    accumulated = training.accumulate_steps
    options = {
        "learning_rate": learning_rate,
        "weight_decay": training.weight_decay,
        "global_clipnorm": training.clip_norm,
        "gradient_accumulation_steps": accumulated if accumulated > 1 else None,
        "use_ema": training.ema_momentum > 0,
        # Keras averages after every step, also after those without an update.
        "ema_momentum": training.ema_momentum ** (1 / accumulated),
    }
    optimizers: dict[str, Callable[[], Any]] = {
        "adamw": lambda: keras.optimizers.AdamW(**options),
        "sgd": lambda: keras.optimizers.SGD(momentum=0.9, nesterov=True, **options),
    }
    return optimizers[training.optimizer]()


def _constant(rate: LearningRate, steps: int) -> Any:
    return rate.peak


def _cosine(rate: LearningRate, steps: int) -> Any:
    import keras

    warmup = round(steps * rate.warmup_fraction)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate.peak / 10 if warmup else rate.peak,
        decay_steps=steps - warmup,
        warmup_target=rate.peak if warmup else None,
        warmup_steps=warmup,
    )


def _one_cycle(rate: LearningRate, steps: int) -> Any:
    """From peak / 25 up to the peak and down to peak / 250,000, following half cosines.

    Smith and Topin, 2018, arXiv:1708.07120, with the shape and constants of fast.ai and PyTorch; the
    momentum is constant.
    """
    import keras
    from keras import ops

    warmup = steps * rate.warmup_fraction
    first, last = rate.peak / 25, rate.peak / 250_000

    class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            step = ops.cast(step, "float32")
            rising = ops.clip(step / max(warmup, 1), 0, 1)
            falling = ops.clip((step - warmup) / max(steps - 1 - warmup, 1), 0, 1)
            return ops.where(
                step < warmup,
                first + (rate.peak - first) * (1 - ops.cos(math.pi * rising)) / 2,
                last + (rate.peak - last) * (1 + ops.cos(math.pi * falling)) / 2,
            )

    return OneCycle()


_SCHEDULES: dict[str, Callable[[LearningRate, int], Any]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
