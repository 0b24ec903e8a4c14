"""The state of a store: champions, disk space, and the drift of the newest tables."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.artifacts import MANIFEST, write_json, write_text
from pixelmill.pipeline.registry import show_model
from pixelmill.pipeline.status import DiskStatus, measure_disk, read_drift, read_models, size_below

GIB = 2**30


def test_a_champion_has_its_accuracy_with_the_interval(trained_store: Path) -> None:
    (model,) = read_models(trained_store)
    metrics = show_model(trained_store, "digits@champion").metrics["test"]
    assert (model.name, model.versions, model.champion, model.error) == ("digits", 1, 1, None)
    assert (model.accuracy, model.test_images) == (metrics["accuracy"], metrics["images"])
    assert model.accuracy_interval == tuple(metrics["accuracy_interval"])
    assert model.age_days is not None
    assert 0 <= model.age_days < 1


@pytest.fixture
def copy(trained_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_store / "models", tmp_path / "store/models")
    return tmp_path / "store"


def test_a_model_without_a_champion_says_so(copy: Path) -> None:
    (copy / "models/digits/aliases.json").unlink()
    (model,) = read_models(copy)
    assert (model.champion, model.error) == (None, "no version is the champion")


def test_a_damaged_champion_is_an_error_in_one_line(copy: Path) -> None:
    (copy / "models/digits/1/metrics.json").write_text("damaged")
    (model,) = read_models(copy)
    assert model.error
    assert "metrics.json" in model.error
    assert "\n" not in model.error


def write_table(folder: Path, created_at: str, verdicts: dict[str, str]) -> None:
    measures = [{"measure": name, "verdict": verdict} for name, verdict in verdicts.items()]
    verdict = "drifted" if "drifted" in verdicts.values() else "stable"
    manifest: dict[str, Any] = {
        "created_at": created_at,
        "request": {"model": "digits@1"},
        "drift": {"verdict": verdict, "measures": measures},
    }
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, manifest)


def test_the_newest_table_of_an_output_tells_of_drift(tmp_path: Path) -> None:
    nights = tmp_path / "nights"
    write_table(nights / "run_date=2026-11-25", "2026-11-25T05:00:00+00:00", {"classes": "drifted"})
    write_table(
        nights / "run_date=2026-11-26",
        "2026-11-26T05:00:00+00:00",
        {"classes": "stable", "brightness": "drifted"},
    )
    # The run of the last night has not finished, and hidden folders are not tables.
    (nights / "run_date=2026-11-27").mkdir()
    write_table(nights / ".old", "2026-11-28T05:00:00+00:00", {"classes": "drifted"})
    write_table(tmp_path / "single", "2026-11-20T05:00:00+00:00", {"classes": "stable"})
    (tmp_path / "no-table").mkdir()
    (tmp_path / "older/run").mkdir(parents=True)
    write_text(tmp_path / "older/run" / MANIFEST, '{"created_at": "2026-01-01"}')

    places = ("nights", "single", "no-table", "older", "missing")
    found = read_drift(tmp_path / place for place in places)
    assert [(Path(table.table).name, table.verdict, table.drifted) for table in found] == [
        ("run_date=2026-11-26", "drifted", ("brightness",)),
        ("single", "stable", ()),
    ]


def test_disk_space_is_measured_by_kind_without_following_links(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "models/pets/1").mkdir(parents=True)
    (store / "models/pets/1/model.onnx").write_bytes(bytes(1000))
    (store / "tensors").mkdir()
    (store / "tensors/a.npy").write_bytes(bytes(300))
    link = store / "tensors/link"
    link.symlink_to(store / "models")
    disk = measure_disk(store)
    assert (disk.kinds["models"], disk.kinds["tensors"]) == (1000, 300 + link.lstat().st_size)
    assert 0 < disk.free <= disk.total
    assert size_below(tmp_path / "missing") == 0


@pytest.mark.parametrize(
    ("free", "total", "is_low"),
    [(4, 100, True), (6, 100, False), (9, 1000, True), (11, 1000, False)],
)
def test_little_space_is_less_than_a_twentieth_and_less_than_ten_gib(
    free: int, total: int, is_low: bool
) -> None:
    assert DiskStatus("store", {}, free * GIB, total * GIB).is_low == is_low
