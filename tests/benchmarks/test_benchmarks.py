"""The benchmarks run, and what they say of memory holds; their rates are for people to read."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.many_files import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(module: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_throughput_of_every_contender() -> None:
    told = run("score_throughput", "--small-images", "200", "--photographs", "10", "--rounds", "1")
    assert told.count("pixelmill reaches") == 2
    assert all(name in told for name in ("limit", "tf.data + Keras", "Keras predict", "Pillow loop"))


def test_preparation_beside_tf_data() -> None:
    told = run("prepare_throughput", "--small-images", "200", "--photographs", "20", "--rounds", "1")
    assert told.count("of the limit") == 2
    assert told.count("tf.data") == 2


def test_the_cost_of_a_run_that_reuses() -> None:
    told = run("reuse_cost", "--small-images", "200", "--photographs", "10", "--rounds", "1")
    assert told.count("of reading and hashing") == 2


@pytest.mark.parametrize("recipe", ["mnist", "cifar10-small"])
def test_training_beside_pytorch(recipe: str) -> None:
    told = run("train_throughput", "--recipe", recipe, "--images", "512", "--rounds", "1")
    assert told.count("of the rate from memory") == 2
    assert told.count("wall seconds, ") == (2 if find_spec("torch") else 0)


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    few, many = compare(tmp_path, 10_000, 300_000)
    assert many.manifest["listed"] == many.manifest["scored"] == 300_000
    assert many.peak_memory < 600e6
    # Thirty times the files; what grows is what Python keeps of one folder's names.
    assert many.peak_memory < few.peak_memory + 100e6
