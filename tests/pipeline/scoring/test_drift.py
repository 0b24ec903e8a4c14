"""Drift in the manifest of a table: of a new run, a resumed one, and one that reuses rows."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, describe_file, read_json, write_json
from pixelmill.pipeline.bundles import BASELINE_FILE, ModelBundle, open_bundle
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, measure_images
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.commit import require_no_drift
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import write_images

OF_GREY_IMAGES = set(IMAGE_MEASURES) - {"saturation", "warmth"}


def measures_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in manifest["drift"]["measures"]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty different images, ten copies of one of them, and a damaged file."""
    folder = tmp_path_factory.mktemp("drift") / "images"
    first = write_images(folder, 30)[0]
    for number in range(10):
        shutil.copyfile(first, folder / f"copy-{number}.png")
    (folder / "damaged.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def request_(bundle: ModelBundle, images: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoringRequest:
    output = tmp_path_factory.mktemp("drift-tables") / "first"
    return ScoringRequest(bundle, images, output, max_failure_rate=1, workers=1)


@pytest.fixture(scope="module")
def first(request_: ScoringRequest) -> dict[str, Any]:
    return score_folder(request_).manifest


def test_every_scored_image_of_a_small_run_is_measured(
    first: dict[str, Any], images: Path, bundle: ModelBundle
) -> None:
    drift, found = first["drift"], measures_of(first)
    assert set(found) == {"classes", "confidence", *OF_GREY_IMAGES}
    assert drift["images"] == drift["images_measured"] == first["scored"] == 40
    assert drift["baseline_images"] == 359
    paths = sorted(path for path in images.iterdir() if path.name != "damaged.png")
    decoded = [decode(path.read_bytes(), bundle.image_spec()) for path in paths]
    values = measure_images([image.pixels for image in decoded], [8] * 40, [8] * 40)
    for name, mean in zip(IMAGE_MEASURES, values.mean(axis=0, dtype=np.float64), strict=True):
        if name in found:
            assert found[name]["mean"] == pytest.approx(mean, rel=1e-6)
            assert found[name]["threshold"] == found[name]["noise"] + 0.05
    assert found["size"]["value"] == found["aspect"]["value"] == 0
    # Noise is no digit.
    assert drift["verdict"] == found["sharpness"]["verdict"] == "drifted"


def test_the_accuracy_is_expected_but_not_to_be_relied_on(first: dict[str, Any]) -> None:
    expected = first["expected_accuracy"]
    assert expected["interval"][0] <= expected["accuracy"] <= expected["interval"][1]
    assert not expected["reliable"]
    assert expected["baseline_accuracy"] > 0.9


def test_the_class_totals_are_estimated(first: dict[str, Any]) -> None:
    totals = first["class_totals"]
    # Noise is no digit.
    assert not totals["reliable"]
    assert sum(row["estimated"] for row in totals["classes"].values()) == pytest.approx(
        first["scored"], abs=0.6
    )
    assert {name: row["predicted"] for name, row in totals["classes"].items() if row["predicted"]} == first[
        "labels"
    ]


def test_a_limit_refuses_the_run_and_leaves_the_table(
    request_: ScoringRequest, first: dict[str, Any]
) -> None:
    table = score_folder(replace(request_, max_drift=0.1))
    assert table.manifest["drift"]["tolerance"] == 0.1
    with pytest.raises(GateRefused, match=r"sharpness by .* a drift of at most 0\.1 beyond chance"):
        require_no_drift(table, 0.1)
    require_no_drift(table, None)
    # The same run was resumed: all but the damaged image were kept, and their measures with them.
    assert table.manifest["computed"] == 1
    again = score_folder(request_).manifest
    assert again["drift"] == first["drift"]
    assert again["expected_accuracy"] == first["expected_accuracy"]


def test_reused_rows_keep_their_measures(
    request_: ScoringRequest, first: dict[str, Any], tmp_path: Path
) -> None:
    again = score_folder(replace(request_, output=tmp_path / "again", previous=request_.output)).manifest
    assert again["reused"] == first["scored"] == 40
    assert again["drift"] == first["drift"]


def test_rows_reused_from_csv_have_no_measures(request_: ScoringRequest, tmp_path: Path) -> None:
    score_folder(replace(request_, output=tmp_path / "csv", format="csv"))
    again = score_folder(replace(request_, output=tmp_path / "again", previous=tmp_path / "csv")).manifest
    assert again["reused"] == 40
    assert set(measures_of(again)) == {"classes", "confidence"}
    assert again["drift"]["images_measured"] == 0


def test_a_baseline_of_an_earlier_release_is_compared_as_far_as_it_reaches(
    request_: ScoringRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(request_.bundle.folder, folder)
    old = ("images", "class_counts", "confidence_bins", "confidence_counts")
    baseline = read_json(folder / BASELINE_FILE)
    write_json(folder / BASELINE_FILE, {name: baseline[name] for name in old})
    manifest = read_json(folder / MANIFEST)
    manifest["files"][BASELINE_FILE] = describe_file(folder / BASELINE_FILE)
    write_json(folder / MANIFEST, manifest)
    bundle = open_bundle(folder)
    found = score_folder(replace(request_, bundle=bundle, output=tmp_path / "out")).manifest
    assert set(measures_of(found)) == {"classes", "confidence"}
    assert found["expected_accuracy"] is None
