"""Two versions side by side on the same images."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from pixelmill.pipeline.artifacts import read_json, sha256_of
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.promotion.comparison_page import describe_difference, pair_layers
from pixelmill.pipeline.promotion.model_comparison import ComparedValue, compare_models
from tests.conftest import CommandResult, Run
from tests.pipeline.promotion.versions import NAMES, register, write_version

COUNT = 300
LABELS = np.arange(COUNT) % 3


def predicted(mistakes: range) -> list[int]:
    found = LABELS.copy()
    found[list(mistakes)] = (found[list(mistakes)] + 1) % 3
    return [int(label) for label in found]


def write_folder(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    for number in range(COUNT):
        path = folder / names[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.array([[[number // 256], [number % 256]]], np.uint8)))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 has the first 60 images wrong, version 2 the first 30 and the last 3."""
    store = tmp_path_factory.mktemp("compared")
    register(store, predicted(range(60)))
    register(store, predicted(range(30))[:-3] + [int(label) for label in (LABELS[-3:] + 1) % 3])
    write_folder(store / "images")
    return store


@pytest.fixture(scope="module")
def compared(store: Path, run: Run) -> CommandResult:
    """The command with its page in `store/page`."""
    command = ("models", "compare", "pets@1", "pets@2", "--images", store / "images", "--store", store)
    done = run(*command, "--json", "--output", store / "page")
    assert done.code == 0, done.errors
    return done


def test_metrics_classes_and_differences_have_intervals_and_sides(
    store: Path, compared: CommandResult
) -> None:
    found = compared.json
    assert found == read_json(store / "page/comparison.json")
    assert found["images"] == COUNT
    accuracy = found["metrics"][0]
    assert (accuracy["name"], accuracy["a"], accuracy["b"]) == ("accuracy", 0.8, pytest.approx(0.89))
    low, high = accuracy["difference_interval"]
    assert 0 < low < accuracy["difference"] < high < 0.2
    assert [row["name"] for row in found["metrics"]] == [
        "accuracy",
        "balanced_accuracy",
        "loss",
        "calibration_error",
    ]
    assert [(row["name"], row["images"]) for row in found["classes"]] == [
        (name, 100) for name in sorted(NAMES)
    ]
    assert [image["right"] for image in found["different"]] == ["a"] * 3 + ["b"] * 30
    assert found["different"][0]["path"] == "cat/297.png"
    assert found["agreement"] == pytest.approx(267 / COUNT)
    assert found["a"]["files"]["model.onnx"] == (store / "models/pets/1/model.onnx").stat().st_size
    loss = next(row for row in found["metrics"] if row["name"] == "loss")
    assert loss["difference"] < 0
    assert describe_difference(ComparedValue(**loss)) == "B is better"


def test_the_page_shows_thumbnails_on_a_phone_and_on_a_screen(
    store: Path, compared: CommandResult, browser: Browser
) -> None:
    html = (store / "page/comparison.html").read_text()
    for width in (390, 1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_content(html)
        assert page.locator("figure img").count() == 33
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()
    assert "http" not in html.replace("http-equiv", "")


def test_images_that_either_was_trained_on_are_left_out(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images")
    hashes = [sha256_of(images / NAMES[number % 3] / f"{number:03d}.png") for number in range(COUNT)]
    a = write_version(tmp_path, predicted(range(10)), 1, contents=hashes[:100])
    b = write_version(tmp_path, predicted(range(10)), 2, contents=hashes[50:120])
    found = compare_models(tmp_path, a, b, str(images))
    assert found.images == 180
    assert (found.left_out.trained_on_by_a, found.left_out.trained_on_by_b) == (100, 70)
    everything = write_version(tmp_path, predicted(range(10)), 3, contents=hashes)
    with pytest.raises(RequestError, match="none of the 300 images"):
        compare_models(tmp_path, a, everything, str(images))


@pytest.mark.parametrize("labelled", [True, False])
def test_a_table_may_have_labels(labelled: bool, store: Path, tmp_path: Path) -> None:
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"] if labelled else ["path"])
        for number in range(0, COUNT, 2):
            path = store / "images" / NAMES[number % 3] / f"{number:03d}.png"
            writer.writerow([path, NAMES[number % 3]] if labelled else [path])
        writer.writerow(["gone.png", "cat"] if labelled else ["gone.png"])
    a, b = (write_version(tmp_path, predicted(range(count)), 1) for count in (60, 30))
    found = compare_models(store, a, b, str(tmp_path / "table.csv"))
    assert found.images == 150
    assert found.left_out.unreadable == 1
    assert bool(found.metrics) == labelled
    assert found.agreement == pytest.approx(1 - 15 / 150)
    assert {image.right for image in found.different} == ({"b"} if labelled else {None})


def test_a_folder_whose_subfolders_are_no_classes_gives_only_the_agreement(
    store: Path, tmp_path: Path, run: Run
) -> None:
    images = write_folder(tmp_path / "images", ("x", "y", "z"))
    done = run("models", "compare", "pets@1", "pets@2", "--images", images, "--store", store)
    assert done.code == 0, done.errors
    assert "The true classes are not known, so only the agreement is." in done.output
    assert "Same label for 89.00% of the images" in done.output
    assert "images/s" in done.output


def test_a_missing_folder_and_a_table_without_paths_are_one_line(
    store: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("image,label\na.png,cat\n")
    for images, message in ((tmp_path / "no", "do not exist"), (tmp_path / "table.csv", "no column 'path'")):
        done = run("models", "compare", "pets@1", "pets@2", "--images", images, "--store", store)
        assert done.code == 2
        assert message in done.last_error
        assert "Traceback" not in done.errors


def test_without_images_the_test_images_of_the_second_are_used_and_no_tensorflow(trained_store: Path) -> None:
    program = (
        "import json, pathlib, sys\n"
        "from pixelmill.pipeline.registry import find_bundle\n"
        "from pixelmill.pipeline.promotion.model_comparison import compare_models\n"
        "if __name__ == '__main__':\n"
        "    store = pathlib.Path(sys.argv[1])\n"
        "    a, b = find_bundle(store, 'digits@1'), find_bundle(store, 'digits@champion')\n"
        "    found = compare_models(store, a, b, None)\n"
        "    heavy = sorted({'tensorflow', 'keras', 'prefect'} & set(sys.modules))\n"
        "    print(json.dumps([heavy, found.on, found.images, found.agreement, found.a.layers[:1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(trained_store)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    heavy, title, images, agreement, layers = json.loads(done.stdout)
    assert heavy == []
    assert title == "the test images of digits@1"
    assert images == 359
    assert agreement == 1
    assert layers[0].startswith("convolution")


def test_layers_are_paired() -> None:
    assert list(pair_layers(["a", "b", "c"], ["a", "x", "y", "c"])) == [
        ("a", "a", True),
        ("b", "x", False),
        ("", "y", False),
        ("c", "c", True),
    ]
