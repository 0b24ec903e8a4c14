"""Fixed stays fixed: corrected images that no later version may get wrong."""

import csv
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import sha256_of
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.config.sources import FolderSource
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.errors import GateRefused, WorkError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.promotion import VersionRefused, promote_bundle
from pixelmill.pipeline.promotion.permanent_checks import collect_checks, require_checks, run_checks
from pixelmill.pipeline.registry import aliases_of
from pixelmill.pipeline.registry.checks import PermanentCheck, add_checks, check_image, read_checks
from pixelmill.pipeline.storage import Location, parse_location, read_content
from tests.pipeline.promotion.versions import NAMES, register, write_images

LABELS = [0, 1, 2] * 40
# Image number 700 is none of the test images; its true class is a dog.
NUMBER = 700


def dataset(folder: Path) -> Path:
    """Twelve images of each class in folders, with a dog among the cats."""
    for number in range(36):
        write(folder / NAMES[number % 3] / f"{number}.png", number)
    write(folder / "cat" / "dog.png", NUMBER)
    return folder


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.array([[[number // 256], [number % 256]]], np.uint8)))


def correct(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["sha256", "path", "label", "who", "when"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def collect(store: Location, images: Path, corrections: Path, cache: Path) -> int:
    source = FolderSource(source="folder", path=str(images), corrections=str(corrections))
    return collect_checks(store, "pets", download_dataset(source, cache), str(corrections), "a run")


def predicting(store: Path, dog: int) -> ModelBundle:
    """A version that is right for the test images, and predicts a class for the image of the dog."""
    return register(store, [(number % 3) if number < 120 else dog for number in range(NUMBER + 1)])


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """A store with one permanent check: `cat/dog.png` is a dog."""
    images = dataset(tmp_path / "dataset")
    rows = correct(tmp_path / "corrections.csv", {"path": "cat/dog.png", "label": "dog", "who": "Ana"})
    store = tmp_path / "store"
    assert collect(store, images, rows, tmp_path / "cache") == 1
    assert collect(store, images, rows, tmp_path / "cache") == 0
    shutil.rmtree(images)
    rows.unlink()
    return store


def test_a_version_that_gets_a_corrected_image_wrong_is_refused(checked: Path, tmp_path: Path) -> None:
    test = write_images(tmp_path / "images", LABELS)
    assert promote_bundle(checked, predicting(checked, dog=1), PromotionSpec(), test).version == 1
    with pytest.raises(VersionRefused) as refusal:
        promote_bundle(checked, predicting(checked, dog=0), PromotionSpec(), test)
    assert aliases_of(checked, "pets") == {"champion": 1}
    message = str(refusal.value)
    assert "pets@2 gets 1 of 1 corrected images wrong: cat/dog.png (dog, predicted cat)" in message
    assert '`pixelmill models promote pets@2 --alias champion --force --reason "..."`' in message
    bar = refusal.value.judgement.verdicts[-1]
    assert (bar.bar, bar.verdict, bar.value, bar.champion) == ("permanent_checks", "refused", 0, 1)
    facts = refusal.value.judgement.to_json()["permanent_checks"]
    assert facts["failed"] == [
        {
            "sha256": next(iter(read_checks(checked, "pets"))),
            "path": "cat/dog.png",
            "label": "dog",
            "predicted": "cat",
            "probability": pytest.approx(0.9),
            "who": "Ana",
        }
    ]
    checks = refusal.value.judgement.checks
    assert checks is not None
    assert checks.failed[0].picture.startswith("data:image/png;base64,")


def test_a_check_counts_although_the_version_was_trained_on_the_image(checked: Path) -> None:
    bundle = register(checked, [0] * (NUMBER + 1), trained_on=[NUMBER])
    results = run_checks(checked, bundle, None)
    assert results is not None
    assert len(results.failed) == 1


def test_a_later_correction_replaces_the_label_and_exclusion_withdraws_the_check(tmp_path: Path) -> None:
    store, images = tmp_path / "store", dataset(tmp_path / "dataset")
    sha256 = sha256_of(images / "cat/dog.png")
    for count, row in enumerate(
        (
            {"sha256": sha256, "label": "dog"},
            {"sha256": sha256.upper(), "label": "fish"},
            {"path": "cat/dog.png", "label": "exclude"},
        ),
        1,
    ):
        rows = correct(tmp_path / "corrections.csv", row)
        assert collect(store, images, rows, tmp_path / "cache") == 1
        label = None if row["label"] == "exclude" else row["label"]
        assert read_checks(store, "pets")[sha256].label == label
        assert len(list((store / "models/pets/checks").glob("*.json"))) == count, "nothing is overwritten"
    assert run_checks(store, predicting(store, dog=0), None) is None
    assert collect(store, images, correct(tmp_path / "no.csv"), tmp_path / "cache") == 0
    assert len(read_checks(store, "pets")) == 1


def test_a_check_of_a_class_that_is_gone_or_whose_image_is_gone_is_not_judged(checked: Path) -> None:
    others = register(checked, [0] * (NUMBER + 1), ("cat", "horse", "fish"))
    results = run_checks(checked, others, None)
    assert results is not None
    assert (results.images, results.not_judged, results.failed) == (0, 1, ())
    assert results.verdict().verdict == "not judged"
    (check,) = read_checks(checked, "pets").values()
    check_image(checked, "pets", check).unlink()
    results = run_checks(checked, predicting(checked, dog=0), None)
    assert results is not None
    assert results.not_judged == 1


def test_promoting_by_hand_needs_force(checked: Path) -> None:
    with pytest.raises(GateRefused, match=r"cat/dog\.png \(dog, predicted fish\)"):
        require_checks(checked, predicting(checked, dog=2), "pixelmill models promote pets@1 --force")
    require_checks(checked, predicting(checked, dog=1), "")


def test_a_damaged_list_of_checks_is_an_error(checked: Path) -> None:
    (checked / "models/pets/checks/00000001.json").write_text("{}")
    with pytest.raises(WorkError, match="is not a list of permanent checks"):
        run_checks(checked, predicting(checked, dog=1), None)


def test_checks_that_several_runs_add_at_once_are_all_kept(tmp_path: Path) -> None:
    add_from_threads(tmp_path)


def add_from_threads(store: Location) -> None:
    def add(number: int) -> None:
        sha256 = f"{number:064x}"
        check = PermanentCheck(sha256=sha256, label="cat", file=f"{sha256}.png", name="x", origin="x")
        add_checks(store, "pets", {sha256: check}, lambda _: b"image %d" % number, "a run")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_checks(store, "pets")
    assert set(found) >= {f"{number:064x}" for number in range(8)}
    for number in range(8):
        assert read_content(check_image(store, "pets", found[f"{number:064x}"])) == b"image %d" % number


def test_checks_in_an_object_store_are_kept_and_run(s3_store: str, tmp_path: Path) -> None:
    store = parse_location(s3_store)
    images = dataset(tmp_path / "dataset")
    rows = correct(tmp_path / "corrections.csv", {"path": "cat/dog.png", "label": "dog"})
    assert collect(store, images, rows, tmp_path / "cache") == 1
    results = run_checks(store, predicting(tmp_path, dog=0), None)
    assert results is not None
    assert [one.predicted for one in results.failed] == ["cat"]
    add_from_threads(store)
