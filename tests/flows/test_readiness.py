"""Problems of a retraining run are reported before Prefect and TensorFlow are imported."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.readiness import check_readiness
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import PIXELMILL, write_images

TRANSFER = (
    "image.height=32",
    "image.width=32",
    "image.channels=3",
    "model.layers=[{layer: application, name: MobileNetV2, weights: none.h5}, "
    "{layer: global_average_pooling}, {layer: dense, units: classes}, {layer: softmax}]",
)


def refusal(recipe: Recipe, store: Path) -> str:
    with pytest.raises(RequestError) as caught:
        check_readiness(recipe, store)
    assert int(caught.value.exit_code) == 2
    return str(caught.value)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 4, seed)
    return tmp_path / "pets"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_a_valid_request_is_ready_and_leaves_no_files(name: str, tmp_path: Path) -> None:
    check_readiness(load_recipe(name), tmp_path / "new/store")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_listed_but_not_read(pets: Path, tmp_path: Path) -> None:
    for path in pets.rglob("*.png"):
        path.write_bytes(b"")
    check_readiness(load_recipe("folder", [f"dataset.path={pets}"]), tmp_path)
    message = refusal(load_recipe("folder", [f"dataset.path={pets}", f"dataset.test_path={pets}"]), tmp_path)
    assert "is the folder of dataset.path" in message


def test_a_network_with_another_number_of_classes_is_refused(pets: Path, tmp_path: Path) -> None:
    recipe = load_recipe("folder", [f"dataset.path={pets}", "model.layers.13.units=3"])
    assert "a network with the output 3; expected 2, one for each class" in refusal(recipe, tmp_path)


def test_a_missing_weights_file_is_reported(tmp_path: Path) -> None:
    assert "weights 'none.h5' of the application MobileNetV2" in refusal(
        load_recipe("digits", TRANSFER), tmp_path
    )
    check_readiness(load_recipe("digits", [*TRANSFER, "model.layers.0.weights=imagenet"]), tmp_path)


@pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/dev").glob("nvidia*")), reason="this machine may have a GPU"
)
def test_a_missing_gpu_is_reported(tmp_path: Path) -> None:
    assert "there is no GPU" in refusal(load_recipe("digits", ["training.device=gpu"]), tmp_path)


def test_an_unwritable_store_is_reported() -> None:
    message = refusal(load_recipe("digits"), Path("/proc/none/store"))
    assert "store /proc/none/store cannot be written to" in message


def test_the_commands_refuse_before_heavy_imports(tmp_path: Path) -> None:
    program = (
        "import shlex, sys\n"
        "from pixelmill.flows.command_line import app\n"
        "from pixelmill.pipeline.errors import RequestError\n"
        "for command in sys.argv[1:]:\n"
        "    try: app(shlex.split(command), standalone_mode=False)\n"
        "    except RequestError as error: print(error)\n"
        "heavy = {'tensorflow', 'keras', 'prefect', 'onnxruntime', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    commands = [
        f"retrain folder --set dataset.path={tmp_path}/none --store {tmp_path}/store",
        f"demo --set dataset.source=folder --set dataset.path={tmp_path}/none --store {tmp_path}/store",
    ]
    assert all(shlex.split(command) for command in commands)
    done = subprocess.run(
        [PIXELMILL.with_name("python"), "-c", program, *commands], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"dataset.path {tmp_path}/none does not exist") for line in lines)
    assert list(tmp_path.iterdir()) == []
