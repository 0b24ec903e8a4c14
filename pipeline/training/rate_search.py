"""Finding the peak of the learning rate: a range test.

Smith, 2015, arXiv:1506.01186: train for a few steps with a learning rate that rises from far too low to far
too high, and look at the loss. The peak is where the smoothed loss falls fastest, one of the suggestions of
fastai's `lr_find`.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training import RateSearch
from pixelmill.pipeline.training.backends import Device
from pixelmill.pipeline.training.checkpoints import TrainingState
from pixelmill.pipeline.training.class_weights import weighted
from pixelmill.pipeline.training.compilation import compile_for, compile_with
from pixelmill.pipeline.training.input_pipeline import Batches, TrainingBatches
from pixelmill.pipeline.training.schedules import optimizer_with

_RATES = np.geomspace(1e-6, 10, 100)
# The loss has exploded, as in fastai.
_EXPLODED = 4.0
_RECENT = 5
_SMOOTHING = 3.0
_FEWEST = 10


def find_rate(
    network: Any, dataset: PreparedDataset, training: TrainingSpec, device: Device, state: TrainingState
) -> tuple[TrainingSpec, TrainingState]:
    """Compile a network for the peak learning rate that a search finds, or found before a checkpoint.

    Args:
        network: A Keras model with the weights that training starts from.
        dataset: Its training split is used.
        training: The settings of the recipe.
        device: Of the training.
        state: Of the checkpoint; empty before the first epoch.

    Returns:
        The settings with the peak that was found, and the state with the search.

    Raises:
        WorkError: See `search_rate`.
    """
    search = state.search
    if search is None:
        images, classes = dataset.split("train"), len(dataset.class_names)
        batches = weighted(TrainingBatches(images, classes, training), images.labels, classes, training)
        compile_with(network, training, optimizer_with(training, float(_RATES[0])), 1)
        search = search_rate(network, batches, training)
    rate = training.learning_rate.model_copy(update={"peak": search.peak})
    training = training.model_copy(update={"learning_rate": rate})
    compile_for(network, training, dataset, device)
    return training, replace(state, search=search)


def search_rate(network: Any, batches: Batches, training: TrainingSpec) -> RateSearch:
    """Find the peak learning rate for a network, whose variables are the same afterwards.

    Args:
        network: A Keras model, compiled with an optimizer whose learning rate is a variable.
        batches: Of the training split; those of the first steps are used.
        training: Its `accumulate_steps` is the number of steps with each rate.

    Raises:
        WorkError: The loss is infinite or NaN from the beginning.
    """
    from keras import ops

    before = [ops.convert_to_numpy(variable).copy() for variable in network.variables]
    losses: list[float] = []
    with progress("find the learning rate", len(_RATES), "steps") as advance:
        for index, rate in enumerate(_RATES):
            network.optimizer.learning_rate = float(rate)
            repeated = range(index * training.accumulate_steps, (index + 1) * training.accumulate_steps)
            loss = float(np.mean([_train(network, batches[step % len(batches)]) for step in repeated]))
            if not math.isfinite(loss) or _has_exploded([*losses, loss]):
                break
            losses.append(loss)
            advance(1, f"learning rate {rate:.2g}, loss {loss:.4f}")
    for variable, value in zip(network.variables, before, strict=True):
        variable.assign(value)
    if len(losses) < _FEWEST:
        raise WorkError(
            f"the loss explodes after {len(losses)} steps of the search for a learning rate",
            "a network that can be trained with a learning rate of 1e-6",
            "Set training.learning_rate.find=false, and look for a layer or an image that makes it infinite.",
        )
    rates = _RATES[: len(losses)]
    return RateSearch(choose_peak(rates, np.array(losses)), tuple(map(float, rates)), tuple(losses))


def _has_exploded(losses: list[float]) -> bool:
    """Whether the mean of the last losses is four times that of some losses before."""
    if len(losses) <= _RECENT:
        return False
    means = np.convolve(losses, np.full(_RECENT, 1 / _RECENT), mode="valid")
    return bool(means[-1] > _EXPLODED * means.min())


def _train(network: Any, batch: Any) -> float:
    pixels, labels, *weights = batch
    logs = network.train_on_batch(pixels, labels, *weights, return_dict=True)
    network.reset_metrics()
    return float(logs["loss"])


def choose_peak(rates: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]) -> float:
    """The learning rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Args:
        rates: Ascending, float64 [steps].
        losses: Finite, float64 [steps], at least two.
    """
    smooth = smooth_losses(losses)
    # Beyond the minimum, a falling loss is chance.
    last = max(int(smooth.argmin()), 1)
    slopes = np.gradient(smooth, np.log(rates))[: last + 1]
    return float(f"{rates[int(slopes.argmin())]:.2g}")


def smooth_losses(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian mean over the neighbouring steps, of which there are fewer at the ends."""
    places = np.arange(len(losses))
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * _SMOOTHING**2))
    smooth: npt.NDArray[np.float64] = weights @ losses / weights.sum(axis=1)
    return smooth
