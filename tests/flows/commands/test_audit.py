"""`pixelmill audit` on folders and tables with planted faults."""

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import Pixels
from tests.conftest import Run
from tests.pipeline.audit.planted import CLASSES, crops


def write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


def write_sound(folder: Path, count: int = 30) -> None:
    for name in CLASSES:
        for index, pixels in enumerate(crops(name, count)):
            write(folder / name / f"{index:04}.png", pixels)


def plant(folder: Path) -> dict[str, set[str]]:
    """Plant faults of every kind that needs no model; the paths by kind, or those that are among others."""
    extra = crops("brick", 50)[30:]
    for index, pixels in enumerate(crops("coins", 3)):
        write(folder / "coin" / f"{index}.png", pixels)
    (folder / "brick/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing else")
    (folder / "brick/copy.png").write_bytes((folder / "brick/0003.png").read_bytes())
    write(folder / "brick/next frame.png", np.clip(extra[0].astype(int) + 3, 0, 255).astype(np.uint8))
    write(folder / "brick/frame.png", extra[0])
    (folder / "grass/also a brick.png").write_bytes((folder / "brick/0004.png").read_bytes())
    write(folder / "brick/large.png", extra[2].repeat(8, axis=0).repeat(8, axis=1))
    write(folder / "brick/banner.png", np.tile(extra[3], (1, 3, 1)))
    write(folder / "brick/dark.png", extra[4] // 8)
    write(folder / "brick/bright.png", 255 - extra[5] // 8)
    write(folder / "brick/blurred.png", np.asarray(cv2.GaussianBlur(extra[6], (0, 0), 4), np.uint8))
    write(folder / "brick/empty.png", np.full((32, 32, 3), 128, np.uint8))
    return {
        "unreadable": {"brick/broken.png"},
        "duplicate": {"brick/copy.png"},
        "near_duplicate": {"brick/next frame.png"},
        "contradiction": {"brick/0004.png", "grass/also a brick.png"},
        "imbalance": {"coin"},
        "odd_size": {"brick/large.png"},
        "odd_aspect_ratio": {"brick/banner.png"},
        "dark": {"brick/dark.png"},
        "bright": {"brick/bright.png"},
        "blurred": {"brick/blurred.png"},
        "flat": {"brick/empty.png", "brick/dark.png", "brick/bright.png"},
        "leak": set(),
        "label_error": set(),
    }


def contents_of(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_planted_faults_are_found_and_no_others(run: Run, tmp_path: Path) -> None:
    images, store = tmp_path / "images", tmp_path / "store"
    write_sound(images)
    planted, before = plant(images), contents_of(images)
    answer = run("audit", images, "--store", store, "--output", tmp_path / "audit", "--json")
    assert answer.code == 0, answer.errors
    found = {
        kind: {finding["path"] for finding in findings} for kind, findings in answer.json["findings"].items()
    }
    assert found == planted
    assert answer.json["images"] == len(before)
    assert answer.json["stopped"] is False
    assert contents_of(images) == before
    assert read_json(tmp_path / "audit/audit.json") == answer.json
    assert "<h1>Audit of" in (tmp_path / "audit/index.html").read_text()


def test_leaks_into_a_test_folder_stop_with_exit_code_3(run: Run, tmp_path: Path) -> None:
    images, test = tmp_path / "images", tmp_path / "test"
    write_sound(images)
    for name in CLASSES:
        write(test / name / "new.png", crops(name, 60)[59])
    write(test / "brick/known.png", crops("brick", 30)[7])
    options = ("--set", f"dataset.test_path={test}", "--set", "dataset.audit.leak=stop")
    answer = run("audit", images, *options, "--store", tmp_path / "store", "--json")
    assert answer.code == 3
    assert answer.json["stopped"] is True
    assert answer.json["stopped_by"] == ["leak"]
    (leak,) = answer.json["findings"]["leak"]
    assert (leak["path"], leak["other_path"]) == ("brick/known.png", "brick/0007.png")
    assert answer.last_error.startswith(
        "pixelmill: the audit found leaks between splits: 1 (brick/known.png)"
    )
    again = run("audit", images, *options, "--store", tmp_path / "store")
    assert again.code == 3
    assert "leaks between splits     1 (brick/known.png)" in again.output


def test_a_table_is_audited_with_its_splits_and_groups(run: Run, tmp_path: Path) -> None:
    write_sound(tmp_path / "images", 10)
    with (tmp_path / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split", "group"))
        for name in CLASSES:
            for index in range(10):
                split = ("test", "validation")[index] if index < 2 else "train"
                rows.writerow((f"images/{name}/{index:04}.png", name, split, f"{name} {index // 4}"))
    answer = run("audit", tmp_path / "images.csv", "--store", tmp_path / "store", "--json")
    assert answer.code == 0, answer.errors
    leaks = [finding["reason"] for finding in answer.json["findings"]["leak"]]
    assert len(leaks) == 6
    assert all("of the same group as" in reason for reason in leaks)


def test_a_folder_that_cannot_be_trained_on_is_audited(run: Run, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_sound(images, 3)
    for path in (images / "brick").iterdir():
        (images / "grass" / path.name).write_bytes(path.read_bytes())
    answer = run("audit", images, "--store", tmp_path / "store", "--json")
    assert answer.code == 0, answer.errors
    assert len(answer.json["findings"]["contradiction"]) == 6


@pytest.mark.parametrize("what", ["nowhere", "nothing.yaml"])
def test_what_is_not_there_is_one_line(run: Run, tmp_path: Path, what: str) -> None:
    answer = run("audit", tmp_path / what, "--store", tmp_path / "store")
    assert answer.code == 2
    assert len(answer.errors.strip().splitlines()) == 1
