"""`pixelmill recipes show`: a recipe that loads again, with the table of its network as comments."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixelmill.flows.command_line import app
from pixelmill.pipeline.recipes import load_recipe, parse_recipe, shipped_recipes
from tests.conftest import PIXELMILL

TEXTBOOK = """
name: textbook
dataset: {source: digits}
image: {height: 32, width: 32, channels: 3}
model:
  layers:
    - {layer: convolution, filters: 12, kernel_size: 3, padding: same}
    - {layer: activation, function: relu}
    - {layer: max_pooling, size: 2}
    - {layer: flatten}
    - {layer: dense, units: 10}
    - {layer: softmax}
training: {epochs: 1}
"""
TABLE = """\
#    layer                                     output  parameters  multiply-adds  receptive field  stride
#    image                                    32x32x3
# 0  convolution: filters 12, kernel_size 3  32x32x12         324        331,776              3x3     1x1
# 1  activation: function relu               32x32x12                                         3x3     1x1
# 2  max_pooling                             16x16x12                                         4x4     2x2
# 3  flatten                                     3072                                         4x4
# 4  dense: units 10                               10      30,730         30,720            34x34
# 5  softmax                                       10                                       34x34
#    all                                                   31,054        362,496
#
# Kernels have 324 parameters. Fully connected layers between the same volumes would have
# 37,748,736: 116,508 times as many.
# A receptive field larger than the image extends into the padding.
"""


Show = Callable[..., str]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """`pixelmill recipes show` in an empty folder; in this process, because it runs a dozen times."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> str:
        app(["recipes", "show", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return call


def network(shown: str) -> Any:
    return json.loads(shown)["network"]


def test_a_textbook_network_has_the_counts_of_the_textbook(show: Show, tmp_path: Path) -> None:
    (tmp_path / "textbook.yaml").write_text(TEXTBOOK)
    assert show("textbook.yaml").endswith("\n\n" + TABLE)
    described = network(show("textbook.yaml", "--json"))
    volumes = {layer["layer"]: layer["output"] for layer in described["layers"]}
    assert [volumes[name] for name in ("convolution", "activation", "max_pooling", "dense")] == [
        [32, 32, 12],
        [32, 32, 12],
        [16, 16, 12],
        [10],
    ]
    assert (described["parameters"], described["multiply_adds"], described["classes"]) == (
        31_054,
        362_496,
        10,
    )
    assert described["layers"][0]["field"] == {"size": [3, 3], "stride": [1, 1], "start": [-1, -1]}


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_output_loads_as_the_same_recipe(name: str, show: Show) -> None:
    assert parse_recipe(yaml.safe_load(show(name)), "shown") == load_recipe(name)


def test_the_table_needs_no_tensorflow() -> None:
    program = (
        "import sys\n"
        "from pixelmill.flows.command_line import app\n"
        f"for name in {shipped_recipes()}: app(['recipes', 'show', name], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'prefect', 'onnx', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [PIXELMILL.with_name("python"), "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_folder_is_shown_for_an_assumed_number_of_classes(show: Show, tmp_path: Path) -> None:
    assert "10 classes are assumed; set --classes N" in show("folder")
    for count in (3, 4):
        (tmp_path / "images" / str(count)).mkdir(parents=True)
    assert network(show("folder", "--json"))["classes"] == 2
    assert "classes are assumed" not in show("folder")
    described = network(show("folder", "--classes", 37, "--json"))
    assert (described["classes"], described["layers"][-1]["output"]) == (37, [37])


def test_an_application_shows_what_is_known(show: Show) -> None:
    settings = (
        "image.height=96",
        "image.width=96",
        "model.layers=[{layer: application, name: MobileNetV2, weights: imagenet, frozen_layers: all}, "
        "{layer: global_average_pooling}, {layer: dense, units: classes}, {layer: softmax}]",
    )
    overrides = [word for setting in settings for word in ("--set", setting)]
    shown = show("folder", *overrides)
    assert "application: name MobileNetV2, weights imagenet, frozen_layers all" in shown
    assert "not analyzed" in shown
    described = network(show("folder", *overrides, "--json"))
    assert (described["layers"][0]["output"], described["layers"][0]["parameters"]) == (
        [3, 3, 1280],
        2_257_984,
    )
    assert described["multiply_adds"] is None
