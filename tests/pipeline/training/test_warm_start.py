"""Training that starts from an earlier model: what is taken, and what it saves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.starting_weights import find_starting_weights
from pixelmill.pipeline.training import HISTORY_FILE, TrainedModel
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
from pixelmill.pipeline.training.trainer import train_model
from pixelmill.pipeline.training.warm_start import StartingWeights, TakenWeights, take_weights
from tests.pipeline.training.recipes import digits, small_recipe

# Every other worker would have to train again.
pytestmark = pytest.mark.xdist_group("warm-start")


@dataclass(frozen=True)
class Taken:
    """What small networks took from another one, and two training runs, of which the second starts warm.

    Attributes:
        report: What a network with another class took.
        before: The weights of the last layer of the earlier network.
        initial: Those of the later network before it took any.
        after: Those of the later network afterwards.
        refusal: The error of a network without a layer in common.
        unnamed: What a network took from a file without class names.
        cold: The first training run.
        warm: The second training run.
    """

    report: TakenWeights
    before: Any
    initial: Any
    after: Any
    refusal: str
    unnamed: TakenWeights
    cold: TrainedModel
    warm: TrainedModel


def network_of(classes: int, units: int = 4, name: str = "convolution") -> Any:
    import keras

    image = keras.Input((6, 6, 1), name="image")
    tensor = keras.layers.Conv2D(units, 3, name=f"0_{name}")(image)
    tensor = keras.layers.GlobalAveragePooling2D(name="1_pooling")(tensor)
    tensor = keras.layers.Dense(classes, name="2_dense", bias_initializer="uniform")(tensor)
    return keras.Model(image, keras.layers.Softmax(name="3_softmax")(tensor))


def take(folder: Path) -> Taken:
    import_tensorflow()
    # Training sets the threads of TensorFlow, which cannot change once it runs.
    choose_device("cpu")
    earlier, later, other = network_of(2), network_of(3), network_of(3, name="other")
    earlier.save(folder / "earlier.keras")
    start = StartingWeights(folder / "earlier.keras", "0" * 64, "birds@4", ("dog", "cat"))
    initial = later.layers[-2].get_weights()
    report = take_weights(later, start, ["cat", "dog", "horse"])
    np.testing.assert_array_equal(later.layers[1].get_weights()[0], earlier.layers[1].get_weights()[0])
    unnamed = take_weights(network_of(2), StartingWeights(start.path, "", "file"), ["dog", "cat"])
    try:
        take_weights(other, start, ["a", "b", "c"])
    except RequestError as error:
        refusal = str(error)
    dataset = digits(folder)
    cold = train_model(dataset, small_recipe(epochs=6), folder / "cold", folder / "cold.npz")
    champion = StartingWeights(cold.model_path, "1" * 64, "digits@1", dataset.class_names)
    warm = train_model(dataset, small_recipe(epochs=2), folder / "warm", folder / "warm.npz", start=champion)
    return Taken(
        report=report,
        before=earlier.layers[-2].get_weights(),
        initial=initial,
        after=later.layers[-2].get_weights(),
        refusal=refusal,
        unnamed=unnamed,
        cold=cold,
        warm=warm,
    )


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return run_in_spawned_process(take, tmp_path_factory.mktemp("warm"))


@pytest.mark.slow
def test_weights_follow_the_names_of_layers_and_classes(taken: Taken) -> None:
    for before, initial, after in zip(taken.before, taken.initial, taken.after, strict=True):
        np.testing.assert_array_equal(after[..., 0], before[..., 1])
        np.testing.assert_array_equal(after[..., 1], before[..., 0])
        np.testing.assert_array_equal(after[..., 2], initial[..., 2])
    assert str(taken.report) == ("starting from birds@4: the weights of 1 of 2 layers, and of 2 of 3 classes")
    assert (taken.unnamed.layers, taken.unnamed.classes) == (1, 0)
    assert "where no layer has the name and shape of one in this recipe" in taken.refusal


@pytest.mark.slow
def test_a_warm_start_reaches_the_same_validation_loss_in_fewer_epochs(taken: Taken) -> None:
    cold, warm = taken.cold, taken.warm
    losses = [pd.read_csv(model.folder / HISTORY_FILE)["val_loss"] for model in (cold, warm)]
    print(f"cold {losses[0].tolist()}, warm {losses[1].tolist()}")
    assert losses[1].min() <= losses[0].min()
    assert warm.taken == TakenWeights("digits@1", "1" * 64, 3, 3, 10, 10)
    assert read_json(warm.folder / "manifest.json")["starting_weights"]["source"] == "digits@1"
    assert cold.taken is None


def test_the_own_champion_is_used_once_there_is_one(trained_store: Path, tmp_path: Path) -> None:
    recipe = load_recipe("digits", ["training.weights=digits@champion"])
    assert find_starting_weights(recipe, tmp_path) is None
    start = find_starting_weights(recipe, trained_store)
    assert start is not None
    assert (start.source, start.class_names) == ("digits@1", tuple("0123456789"))
    from_file = load_recipe("digits", [f"training.weights={start.path}"])
    found = find_starting_weights(from_file, tmp_path)
    assert found is not None
    assert (found.sha256, found.class_names) == (start.sha256, start.class_names)


@pytest.mark.parametrize("given", ["other@champion", "missing.keras"])
def test_a_model_that_does_not_exist_is_an_error(tmp_path: Path, given: str) -> None:
    with pytest.raises(RequestError):
        find_starting_weights(load_recipe("digits", [f"training.weights={given}"]), tmp_path)
