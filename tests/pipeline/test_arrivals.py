"""New images and corrections: what counts as new, and when a folder is quiet."""

import os
from pathlib import Path

import pytest

from pixelmill.pipeline.arrivals import Arrivals, look_for_arrivals, remember
from pixelmill.pipeline.errors import RequestError
from tests.conftest import write_images


def look(folder: Path) -> Arrivals | None:
    return look_for_arrivals(folder, "pets", str(folder / "images"), str(folder / "corrections.csv"))


def must_look(folder: Path) -> Arrivals:
    found = look(folder)
    assert found is not None
    return found


def test_what_arrives_after_the_first_look_is_new_until_it_is_remembered(tmp_path: Path) -> None:
    write_images(tmp_path / "images/cat", 3)
    assert look(tmp_path) is None
    assert must_look(tmp_path).images == 0
    write_images(tmp_path / "images/dog", 4)
    (tmp_path / "images/dog/notes.txt").write_text("no image")
    (tmp_path / "images/dog/.0.png").write_text("hidden")
    # An old time of modification, as `cp -p` keeps it, does not hide that the file has just arrived.
    os.utime(tmp_path / "images/dog/00000.png", (0, 0))
    (tmp_path / "corrections.csv").write_text("path,label\ncat/00000.png,dog\ncat/00001.png,exclude\n")
    found = must_look(tmp_path)
    assert (found.images, found.corrections) == (4, 2)
    assert found.quiet_minutes < 10
    assert must_look(tmp_path).images == 4
    remember(tmp_path, "pets", found.seen)
    found = must_look(tmp_path)
    assert (found.images, found.corrections) == (0, 0)


def test_removed_images_are_not_new(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 3)
    assert look(tmp_path) is None
    for path in paths:
        path.unlink()
    assert must_look(tmp_path).images == 0


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a folder; expected a folder of images to watch"):
        look(tmp_path)


def test_a_damaged_record_is_a_first_look(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    assert look(tmp_path) is None
    (tmp_path / "arrivals/pets.json").write_text("{")
    assert look(tmp_path) is None
