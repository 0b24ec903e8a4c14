"""The benchmarks run, and their claims about memory hold; their rates are not tested."""

import io
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.processes import run_in_spawned_process
from tests.benchmarks.many_files import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CLASSES = ("cat", "dog", "ship")


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
    described = run("score_throughput", "--small-images", "200", "--photographs", "10", "--rounds", "1")
    assert described.count("pixelmill reaches") == 2
    assert all(name in described for name in ("limit", "tf.data + Keras", "Keras predict", "Pillow loop"))


def test_preparation_beside_tf_data() -> None:
    described = run("prepare_throughput", "--small-images", "200", "--photographs", "20", "--rounds", "1")
    assert described.count("of the limit") == 2
    assert described.count("tf.data") == 2


def test_the_cost_of_reusing_a_table() -> None:
    described = run("reuse_cost", "--small-images", "200", "--photographs", "10", "--rounds", "1")
    assert described.count("of reading and hashing") == 2


def test_a_first_model_beside_keras_and_a_regression(tmp_path: Path) -> None:
    archive, weights = tmp_path / "cifar.tar.gz", tmp_path / "random.weights.h5"
    write_pictures(archive, 115)
    run_in_spawned_process(save_random_weights, weights)
    described = run(
        *(
            "first_model",
            "--cifar",
            str(archive),
            "--weights",
            str(weights),
            "--seeds",
            "1",
            "--seconds",
            "5",
        ),
        *("--images", "10", "--data", "hard", "--set", "training.epochs=1"),
    )
    contenders = ("photos", "photos-small", "folder", "keras", "logistic")
    assert all(f"hard, {name}: balanced accuracy 0." in described for name in contenders)


def write_pictures(archive: Path, count: int) -> None:
    """Write an archive like that of CIFAR-10, with pictures of noise."""
    rng = np.random.default_rng(0)
    with tarfile.open(archive, "w:gz") as stream:
        for name in CLASSES:
            for number in range(count):
                content = encode_png(rng.integers(0, 256, (32, 32, 3), np.uint8))
                entry = tarfile.TarInfo(f"train/{name}/{number:04d}.png")
                entry.size = len(content)
                stream.addfile(entry, io.BytesIO(content))


def save_random_weights(path: Path) -> None:
    import keras

    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(160, 160, 3)).save_weights(
        path
    )


@pytest.mark.parametrize("recipe", ["mnist", "cifar10-small"])
def test_training_compared_with_pytorch(recipe: str) -> None:
    described = run("train_throughput", "--recipe", recipe, "--images", "512", "--rounds", "1")
    assert described.count("of the rate from memory") == 2
    assert described.count("wall seconds, ") == (2 if find_spec("torch") else 0)


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    few, many = compare(tmp_path, 10_000, 300_000)
    assert many.manifest["listed"] == many.manifest["scored"] == 300_000
    assert many.peak_memory < 600e6
    # Thirty times as many files; only the list of names in one folder grows.
    assert many.peak_memory < few.peak_memory + 100e6


def test_every_augmentation_has_a_rate() -> None:
    described = run("augmentation_throughput", "--rounds", "1")
    assert described.count("images/s at 224x224") == 10


def test_a_warm_start_needs_fewer_epochs(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        rng = np.random.default_rng(0)
        for label, name in enumerate(("dark", "light")):
            for index in range(60):
                shades = np.clip(rng.normal(110 + 30 * label, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                content = encode_png(shades)
                member = tarfile.TarInfo(f"train/{name}/{index:03}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    described = run(
        *("warm_start", str(tmp_path / "images.tar.gz")),
        *("--images", "40", "--epochs", "2", "--seeds", "1"),
    )
    assert "from nothing: median" in described
    assert "from the earlier model: median" in described


def test_planted_wrong_labels_are_counted(tmp_path: Path) -> None:
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = tmp_path / f"{label}/{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png((pixels * 15).astype(np.uint8)[..., np.newaxis]))
    described = run("label_errors", str(tmp_path), "--recipe", "digits")
    assert "suggestion right" in described
