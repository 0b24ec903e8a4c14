"""True labels from folder names, including folders that are not a class."""

import os
import unicodedata
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.true_labels import (
    FolderLabels,
    TrueLabelCounts,
    format_not_classes,
    require_class_folders,
)
from pixelmill.pipeline.storage import parse_location
from tests.conftest import write_images

CLASSES = ("Äpfel", "cafe\u0301", "dog")


@pytest.mark.parametrize(
    ("path", "label"),
    [
        (unicodedata.normalize("NFD", "Äpfel") + "/deep/1.png", "Äpfel"),
        ("Äpfel/1.png", "Äpfel"),
        ("caf\u00e9/1.png", "cafe\u0301"),
        ("Dog/1.png", "Dog"),
        ("./dog/1.png", "dog"),
        ("2026-01/1.png", "2026-01"),
        ("a%0Ab/1.png", "a\nb"),
        ("caf%E9/1.png", "caf%E9"),
        ("dog.png", None),
    ],
)
def test_a_folder_is_matched_to_the_class_of_its_name(path: str, label: str | None) -> None:
    assert FolderLabels(CLASSES).of_path(path) == label


@given(st.sampled_from(["NFC", "NFD"]), st.text(st.characters(exclude_characters="/%"), min_size=1))
def test_a_class_is_found_in_any_unicode_form(form: str, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    labels = FolderLabels((name,))
    assert labels.of_folder(unicodedata.normalize(form, name), "") == name  # type: ignore[arg-type]


def test_images_in_folders_that_are_not_a_class_are_counted_separately() -> None:
    counts = TrueLabelCounts(frozenset(CLASSES))
    counts.add(["dog", "dog", "Äpfel", "cam7", None, "cam7", "x"], iter(["dog", "Äpfel"] + ["dog"] * 5))
    accuracy = counts.accuracy()
    assert (accuracy["images"], accuracy["correct"]) == (3, 1)
    assert accuracy["classes"] == {"dog": {"images": 2, "correct": 1}, "Äpfel": {"images": 1, "correct": 0}}
    assert format_not_classes(accuracy) == "3 images in 2 folders that are not classes of the model (cam7, x)"
    many = TrueLabelCounts(frozenset(CLASSES))
    many.add([f"{number}" for number in range(1000)], iter(["dog"] * 1000))
    assert len(many.accuracy()["not_classes"]["images_by_folder"]) == 100
    assert many.accuracy()["not_classes"]["folders"] == 1000


@pytest.mark.parametrize("remote", [False, True])
def test_at_least_one_folder_must_be_a_class(remote: bool, tmp_path: Path) -> None:
    place = parse_location(f"memory://{tmp_path.name}") if remote else tmp_path

    def put(name: str) -> None:
        if remote:
            fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", b"")
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    for name in ("dog.png", ".dog/1.png", "@eaDir/1.png", "cam7/dog/1.png"):
        put(name)
    with pytest.raises(RequestError, match=r"has the folder 'cam7'; expected .* 3 classes, such as 'Äpfel'"):
        require_class_folders(place, CLASSES)
    put(unicodedata.normalize("NFD", "Äpfel") + "/1.png")
    require_class_folders(place, CLASSES)


def test_a_folder_whose_name_is_not_text_is_not_a_class(bundle: ModelBundle, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images / "3", 2)
    write_images(images / os.fsdecode(b"caf\xe9"), 2)
    request = ScoringRequest(bundle, images, tmp_path / "out", labels_from_folders=True, workers=1)
    manifest = score_folder(request).manifest
    assert manifest["accuracy"]["not_classes"]["images_by_folder"] == {"caf%E9": 2}
    assert read_predictions(tmp_path / "out")["true_label"].tolist() == ["3", "3", "caf%E9", "caf%E9"]
