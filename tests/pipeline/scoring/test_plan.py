"""A plan on disk is what a worker reads."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions.columns import RunFacts
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.plan import read_plan, write_plan
from pixelmill.pipeline.scoring.resume import find_run
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.storage import is_remote, parse_location


def plan_of(folder: Path, **changes: Any) -> ScoringPlan:
    bundle = ModelBundle(folder / "model", "digits", 1, "0" * 64, "int8")
    facts = RunFacts("digits", "1", "0" * 64, "run", "2026-01-31T23:59:59Z")
    request = ScoringRequest(bundle, folder / "images", folder / "out")
    image = ImageSpec(height=8, width=9, channels=3, resize="pad", background=7)
    return ScoringPlan(
        replace(request, **changes),
        facts,
        ("0", "é\n"),
        image,
        1.5,
        ImageSource.of_folder(request.images),
        2.25,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 2, "workers": 3, "globs": ("*.png", "a b*"), "labels_from_folders": True, "fresh": True},
        {"format": "csv", "max_pixels": 2**40, "max_image_seconds": 1e-3, "max_failure_rate": 1.0},
        {"executor": "dask", "dask_address": "tcp://host:8786", "trust_mtime": True},
    ],
    ids=["defaults", "lists", "numbers", "cluster"],
)
def test_a_plan_is_read_as_it_was_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = plan_of(tmp_path, previous=tmp_path / "earlier", **changes)
    write_plan(plan)
    assert read_plan(plan.request.work) == plan


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    plan = plan_of(folder)
    write_plan(plan)
    assert read_plan(plan.request.work) == plan


def test_addresses_survive_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = parse_location("memory://bucket/some images")
    plan = plan_of(Path(), images=images)
    write_plan(plan)
    request = read_plan(tmp_path / plan.request.work).request
    assert is_remote(request.images)
    assert str(request.images) == str(images)
    assert request.output == tmp_path / "out"
    assert request.bundle.folder == tmp_path / "model"


@pytest.mark.parametrize("content", [[], {}, {"request": {}}, {"request": [], "run": {}}, {"run": "digits"}])
def test_a_file_that_describes_no_run_is_refused(tmp_path: Path, content: object) -> None:
    request = plan_of(tmp_path).request
    write_json(request.work / "run.json", content)
    with pytest.raises(RequestError, match=r"run\.json does not describe a scoring run"):
        find_run(request, {})
    assert read_json(request.work / "run.json") == content
