"""`pixelmill review` as a user runs it, up to the retraining with its corrections."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.datasets.corrections import read_corrections
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import Run

WANTED = 100
CORRECTED = {"relabelled": WANTED, "excluded": 0, "unchanged": 0, "unmatched": 0}


def write_digits(folder: Path, count: int) -> None:
    """Digits of scikit-learn, one subfolder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(count):
        place = folder / str(digits.target[number]) / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.minimum(digits.images[number] * 16, 255).astype(np.uint8)
        place.write_bytes(encode_png(pixels[:, :, np.newaxis]))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "digits-folder"
    write_digits(folder, 400)
    return folder


@pytest.fixture(scope="module")
def table(run: Run, trained_store: Path, images: Path) -> Path:
    folder = images.with_name("scored")
    options = ("--top-k", 2, "--labels-from-folders", "--store", trained_store)
    done = run("score", "digits@1", images, "--output", folder, *options)
    assert done.code == 0, done.errors
    return folder


def test_a_review_has_a_page_and_copies_of_its_images(
    run: Run, trained_store: Path, images: Path, table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "review"
    done = run("review", table, "--output", output, "--count", 20, "--store", trained_store, "--json")
    assert done.code == 0, done.errors
    assert done.json["images"] == 20
    assert set(done.json["not_judged"]) == {"changed", "threshold"}
    assert (output / "index.html").is_file()
    copies = sorted((output / "images").iterdir())
    assert len(copies) == len(list((output / "thumbnails").iterdir())) == 20
    originals = {hashlib.sha256(path.read_bytes()).hexdigest() for path in images.rglob("*.png")}
    assert {path.stem for path in copies} <= originals
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in copies)
    assert read_json(output / "manifest.json")["images"] == 20
    again = run("review", table, "--output", output, "--store", trained_store)
    assert again.code == 2
    assert "an empty or new folder" in again.last_error


def test_label_studio_gets_tasks_and_gives_corrections(
    run: Run, trained_store: Path, table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "review"
    options = ("--format", "label-studio", "--count", 5, "--store", trained_store)
    done = run("review", table, "--output", output, *options)
    assert done.code == 0, done.errors
    assert (output / "label_config.xml").read_text().count("<Choice ") == 11
    tasks = read_json(output / "tasks.json")
    answers = []
    for task in tasks:
        name = task["data"]["image"].partition("?d=review/")[2]
        assert (output / name).is_file()
        answers.append({**task, "annotations": [{"result": task["predictions"][0]["result"]}]})
    (tmp_path / "export.json").write_text(json.dumps(answers))
    command = ("review", "--from-label-studio", tmp_path / "export.json", "--output", tmp_path / "back")
    done = run(*command, "--json")
    assert done.code == 0, done.errors
    assert done.json["corrections"] == 5
    found = read_corrections(str(tmp_path / "back" / "corrections.csv"))
    assert len(found.by_sha256) == 5
    assert run(*command).code == 2


def test_requests_that_are_wrong_are_one_line(run: Run, table: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--output", tmp_path / "a"), "no table"),
        ((tmp_path, "--output", tmp_path / "a"), "has no manifest.json"),
        ((table, "--output", tmp_path / "a", "--images", tmp_path / "none"), "does not exist"),
        ((table, "--output", tmp_path / "a", "--previous", tmp_path), "has no manifest.json"),
        ((table, "--output", tmp_path / "a", "--model", "nobody@1"), "nobody"),
        ((table, "--output", table), "an empty or new folder"),
    ):
        done = run("review", *words, cwd=tmp_path)
        assert done.code == 2, words
        assert message in done.last_error
        assert "Traceback" not in done.errors
    (tmp_path / "empty").mkdir()
    done = run("review", table, "--output", tmp_path / "a", "--images", tmp_path / "empty")
    assert done.code == 1
    assert "can be read" in done.last_error
    assert not (tmp_path / "a").exists()


def test_a_table_is_reviewed_without_its_model(run: Run, table: Path, tmp_path: Path) -> None:
    done = run(
        "review", table, "--output", tmp_path / "a", "--count", 5, "--store", tmp_path / "none", "--json"
    )
    assert done.code == 0, done.errors
    assert done.json["images"] == 5
    assert "drifted" in done.json["not_judged"]


def correct_with_keys(
    run: Run, browser: Browser, store: Path, images: Path, table: Path, folder: Path
) -> Path:
    """The corrections of a reviewer who gives every image the class after its own."""
    review = folder / "review"
    done = run("review", table, "--output", review, "--count", WANTED, "--store", store)
    assert done.code == 0, done.errors
    truth = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name for path in images.rglob("*.png")
    }
    page = browser.new_page()
    page.goto((review / "index.html").as_uri())
    order = page.evaluate("DATA.images.map(({ sha256 }) => sha256)")
    assert {path.stem for path in (review / "images").iterdir()} == set(order)
    for sha256 in order:
        page.keyboard.press(str((int(truth[sha256]) + 1) % 10))
    with page.expect_download() as download:
        page.locator("#export").click()
    download.value.save_as(folder / "corrections.csv")
    page.close()
    return folder / "corrections.csv"


def test_corrections_made_with_keys_reach_the_dataset(
    run: Run, browser: Browser, trained_store: Path, images: Path, table: Path, tmp_path: Path
) -> None:
    corrections = correct_with_keys(run, browser, trained_store, images, table, tmp_path)
    changes = (f"dataset.path={images}", f"dataset.corrections={corrections}")
    raw = download_dataset(load_recipe("folder", changes).dataset, tmp_path / "store")
    assert dict(raw.corrections) == CORRECTED


@pytest.mark.slow
def test_corrections_made_with_keys_reach_the_next_retraining(
    run: Run, browser: Browser, trained_store: Path, images: Path, table: Path, tmp_path: Path
) -> None:
    settings = {
        "name": "digits-folder",
        "dataset.path": images,
        "dataset.corrections": correct_with_keys(run, browser, trained_store, images, table, tmp_path),
        "image": "{height: 8, width: 8, channels: 1}",
        "training.epochs": 1,
        "promotion.min_accuracy": 0,
        "evaluation.inside": "false",
        "export.embeddings": "true",
    }
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = run("retrain", "folder", *overrides, "--store", tmp_path / "store", "--json")
    assert done.code in (0, 3), done.errors
    manifests = [read_json(path) for path in (tmp_path / "store").rglob("manifest.json")]
    (applied,) = {json.dumps(found["corrections"]) for found in manifests if "corrections" in found}
    assert json.loads(applied) == CORRECTED
    # The new model has embeddings, which spread the next review.
    bundle = tmp_path / "store/models/digits-folder/1"
    size = read_json(bundle / "manifest.json")["embedding_size"]
    assert f"float32 [batch, {size}]" in (bundle / "README.md").read_text()
    store = ("--store", tmp_path / "store")
    done = run("score", "digits-folder@1", images, "--output", tmp_path / "next", "--embeddings", *store)
    assert done.code == 0, done.errors
    assert {len(row) for row in read_predictions(tmp_path / "next")["embedding"]} == {size}
    done = run("review", tmp_path / "next", "--output", tmp_path / "again", "--count", 10, *store, "--json")
    assert done.code == 0, done.errors
    assert done.json["images"] == 10
