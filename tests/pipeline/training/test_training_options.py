"""The options of the optimizer and the loss: each against its definition, in Keras on the CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training import SEARCH_FILE, TrainedModel, read_history
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
from pixelmill.pipeline.training.losses import build_loss
from pixelmill.pipeline.training.pacing import fit_schedule, planned_epochs, time_budget
from pixelmill.pipeline.training.rate_search import choose_peak
from pixelmill.pipeline.training.schedules import build_optimizer
from pixelmill.pipeline.training.trainer import train_model
from tests.pipeline.training.recipes import digits, small_recipe

# Every other worker would have to train again.
pytestmark = pytest.mark.xdist_group("training-options")
GRADIENTS = ([3.0, 4.0], [0.3, -0.4], [6.0, 8.0], [0.1, 0.1])


@dataclass(frozen=True)
class Found:
    """The results of one process, so that Keras is loaded only once."""

    plain: list[float]
    clipped: list[float]
    accumulated: list[float]
    average: float
    focal: float
    cross_entropy: float
    rates: list[float]
    wrapped_rates: list[float]
    too_many: str
    searched: TrainedModel
    named: TrainedModel
    limited: TrainedModel


def spec(**fields: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"epochs": 10, **fields})


def descend(**fields: Any) -> tuple[list[float], float]:
    """The weights after steps along the gradients with SGD, and the moving average of the first weight."""
    import keras

    training = spec(
        optimizer="sgd", weight_decay=0.0, learning_rate={"schedule": "constant", "peak": 0.1}, **fields
    )
    optimizer = build_optimizer(training, 10)
    weight = keras.Variable(np.zeros(2, np.float32))
    optimizer.build([weight])
    optimizer.momentum = 0.0
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, np.float32))], [weight])
    reached = [float(value) for value in weight.numpy()]
    optimizer.finalize_variable_values([weight])
    return reached, float(weight.numpy()[0])


def budgeted_rates(wrap: bool) -> list[float]:
    """The learning rate of each step, with 10 epochs of 10 steps planned and time for 4."""
    import keras

    training = spec(max_minutes=1.0, learning_rate={"peak": 0.5, "warmup_fraction": 0.0})
    optimizer = build_optimizer(training, 100)
    if wrap:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    weight = keras.Variable(np.zeros(2, np.float32))
    optimizer.build([weight])
    rates, history = list[float](), list[dict[str, float]]()
    while len(history) < planned_epochs(training, history):
        for _ in range(10):
            rates.append(float(optimizer.learning_rate))
            optimizer.apply([keras.ops.zeros(2)], [weight])
        history.append({"seconds": 15.0, "start_seconds": 0.0})
        fit_schedule(optimizer, training, history, 10)
    return rates


def losses() -> tuple[float, float]:
    truth = np.array([[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]], np.float32)
    found = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], np.float32)
    focal, plain = build_loss(spec(loss="focal")), build_loss(spec(loss="focal", focal_gamma=0.0))
    return float(focal(truth, found)), float(plain(truth, found))


def find_all(folder: Path) -> Found:
    import_tensorflow()
    choose_device("cpu")
    dataset: PreparedDataset = digits(folder)

    def train(name: str, **fields: Any) -> TrainedModel:
        return train_model(dataset, small_recipe(**fields), folder / name, folder / f"{name}.npz")

    searched = train("searched", learning_rate={"find": True})
    try:
        train("too many", accumulate_steps=42)
    except RequestError as error:
        too_many = str(error)
    plain, _ = descend()
    clipped, _ = descend(clip_norm=1.0)
    accumulated, _ = descend(accumulate_steps=2)
    focal, cross_entropy = losses()
    return Found(
        plain,
        clipped,
        accumulated,
        descend(accumulate_steps=2, ema_momentum=0.81)[1],
        focal,
        cross_entropy,
        budgeted_rates(False),
        budgeted_rates(True),
        too_many,
        searched,
        train("named", learning_rate={"peak": searched.found_peak}),
        # The first epoch takes longer than this.
        train("limited", epochs=20, max_minutes=1e-4),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run_in_spawned_process(find_all, tmp_path_factory.mktemp("store"))


def test_the_norm_of_all_gradients_is_clipped(found: Found) -> None:
    gradients = np.array(GRADIENTS)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    assert found.plain == pytest.approx(-0.1 * gradients.sum(axis=0), rel=1e-5)
    assert found.clipped == pytest.approx(-0.1 * (gradients / np.maximum(norms, 1)).sum(axis=0), rel=1e-5)


def test_accumulated_gradients_are_averaged_into_one_update(found: Found) -> None:
    assert found.accumulated == pytest.approx(-0.1 * np.array(GRADIENTS).sum(axis=0) / 2, rel=1e-5)


def test_the_moving_average_has_its_momentum_for_each_update(found: Found) -> None:
    first, second = -0.1 * 3.3 / 2, -0.1 * 9.4 / 2
    # Keras averages after each of two steps, so one of them has half of the momentum's effect.
    assert found.average == pytest.approx(0.9 * first + 0.1 * second, rel=1e-5)


def test_the_focal_loss_is_defined_for_soft_labels(found: Found) -> None:
    truth = np.array([[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    terms = -truth * np.log(probabilities)
    assert found.cross_entropy == pytest.approx(terms.sum(axis=1).mean(), rel=1e-5)
    assert found.focal == pytest.approx((terms * (1 - probabilities) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_the_schedule_ends_with_the_time(found: Found) -> None:
    assert len(found.rates) == 40
    assert found.rates == pytest.approx(found.wrapped_rates)
    assert np.all(np.diff(found.rates) < 0)
    # The first epoch runs at the pace of ten epochs, the others at a third of what is left.
    assert found.rates[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.09)) / 2, rel=1e-4)
    assert found.rates[25] == pytest.approx(0.5 * (1 + np.cos(np.pi * (0.1 + 0.9 * 15 / 30))) / 2, rel=1e-4)
    assert found.rates[-1] < 0.01 * 0.5


def test_the_plan_counts_the_time_of_all_runs_and_no_compilation() -> None:
    training = spec(max_minutes=1.0, epochs=30)
    history = [{"seconds": 20.0, "start_seconds": 16.0}, {"seconds": 4.0, "start_seconds": 0.1}]
    first, second = time_budget(training, history[:1]), time_budget(training, history)
    assert first is not None
    assert second is not None
    assert (first.epochs, second.epochs) == (1 + 40 // 4, 2 + int(36 / 3.95))
    assert second.used_minutes == pytest.approx(0.4)
    assert time_budget(spec(), history) is None


def test_training_ends_with_its_schedule_even_if_another_epoch_fits() -> None:
    training = spec(max_minutes=1.0)
    rows = [{"seconds": seconds, "start_seconds": 0.0} for seconds in (21.0, 10.0)]
    assert [planned_epochs(training, rows[:done]) for done in range(3)] == [10, 2, 2]


def test_training_ends_with_its_time(found: Found) -> None:
    assert found.limited.epochs == 1
    budget = read_json(found.limited.folder / "manifest.json")["time_budget"]
    assert budget["minutes"] == 1e-4
    assert budget["epochs"] == 1
    assert budget["used_minutes"] > 1e-4


def test_the_search_leaves_no_trace_but_the_learning_rate(found: Found) -> None:
    searched, named = (
        [{**row, "seconds": 0, "start_seconds": 0} for row in read_history(model)]
        for model in (found.searched, found.named)
    )
    assert searched == named
    assert found.searched.validation_loss == found.named.validation_loss


def test_the_search_finds_a_learning_rate_that_trains_well_and_writes_its_curve(found: Found) -> None:
    peak = found.searched.found_peak
    assert peak is not None
    assert 0.001 < peak < 0.2
    assert found.searched.validation_accuracy > 0.8
    assert read_json(found.searched.folder / "manifest.json")["found_learning_rate"] == peak
    curve = pd.read_csv(found.searched.folder / SEARCH_FILE)
    assert list(curve) == ["learning_rate", "loss"]
    assert curve["learning_rate"].is_monotonic_increasing
    assert curve["loss"].min() < 0.5 * curve["loss"][0]
    assert found.named.found_peak is None


def test_the_peak_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-6, 1, 61)
    falling = 2.5 - 2 / (1 + np.exp(-3 * (np.log10(rates) + 3)))
    exploding = falling + np.where(rates > 0.1, 20 * (rates - 0.1), 0)
    noise = np.random.default_rng(0).normal(0, 0.05, 61)
    assert 5e-4 < choose_peak(rates, exploding + noise) < 2e-3


def test_more_accumulated_steps_than_an_epoch_has_are_refused(found: Found) -> None:
    assert found.too_many == (
        "training.accumulate_steps is 42, and an epoch has 41 steps; expected at most as many. Set "
        "training.accumulate_steps=41, or lower training.batch_size."
    )
