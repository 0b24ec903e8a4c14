"""What a run can write besides its table: dated folders, one file, copies, the accuracy and what was seen."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.artifacts import sha256_of
from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE, ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.predictions.parts import read_file_facts
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import children
from tests.conftest import write_images

COUNT = 11


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelmill.pipeline.scoring.shards.FIRST_LIMIT", (4, 8 << 20))


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    write_images(tmp_path / "images/3", COUNT - 4, seed=1)
    write_images(tmp_path / "images/8", 4, seed=2)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=1)


def score_on(request: ScoringRequest, root: Path, run_date: str, **options: Any) -> PredictionTable:
    options |= {"run_date": run_date, "previous": "latest", "workers": 1}
    return score_folder(ScoringRequest.from_options(request.bundle, request.images, root, options))


def test_dated_outputs_are_one_table(request_: ScoringRequest, tmp_path: Path) -> None:
    root = tmp_path / "dated"
    first, second = (score_on(request_, root, f"2026-11-{day}") for day in (25, 26))
    assert first.folder == root / "run_date=2026-11-25"
    assert (first.manifest["reused"], second.manifest["reused"]) == (0, COUNT)
    assert second.manifest["previous"] == str(first.folder)
    query = (
        f"SELECT run_date, count(*) FROM read_parquet('{root}/*/predictions/*.parquet') GROUP BY 1 ORDER BY 1"
    )
    counts = [(str(day), count) for day, count in duckdb.connect().execute(query).fetchall()]
    assert counts == [("2026-11-25", COUNT), ("2026-11-26", COUNT)]
    rows = ds.dataset(root, partitioning="hive", exclude_invalid_files=True).to_table().to_pandas()
    assert rows.groupby("run_date", observed=True).size().to_dict() == dict(counts)
    with pytest.raises(RequestError, match="run_date"):
        score_on(request_, root, "25.11.2026")


def test_a_single_file_has_the_rows_of_all_parts(request_: ScoringRequest, tmp_path: Path) -> None:
    parts = score_folder(replace(request_, output=tmp_path / "parts"))
    single = score_folder(replace(request_, single_file=True))
    assert len(children(parts.folder / "predictions")) > 1
    assert [path.name for path in children(single.folder / "predictions")] == ["part-00000.parquet"]
    columns = ["image_path", "image_sha256", "label", "probability"]
    expected = read_predictions(parts.folder)[columns]
    pd.testing.assert_frame_equal(read_predictions(single.folder)[columns], expected)
    assert len(read_file_facts(single.folder / "predictions/part-00000.parquet")) == COUNT
    again = score_folder(
        replace(request_, output=tmp_path / "again", previous=single.folder, trust_mtime=True)
    )
    assert again.manifest["reused"] == COUNT
    assert again.manifest["drift"]["images_measured"] == single.manifest["drift"]["images_measured"]
    assert score_folder(replace(request_, single_file=True)).manifest["computed"] == COUNT


def test_uncertain_images_are_copied_by_class(request_: ScoringRequest, tmp_path: Path) -> None:
    rows = read_predictions(score_folder(request_).folder)
    limit = float(rows["probability"].median())
    table = score_folder(
        replace(request_, output=tmp_path / "copying", below=limit, copy_to=tmp_path / "review")
    )
    below = rows[rows["probability"] < limit]
    assert table.manifest["copied_below"] == len(below) > 0
    expected = {
        f"{row['label']}/{row['image_sha256'][:12]}-{Path(row['image_path']).name}": row["image_sha256"]
        for row in below.to_dict("records")
    }
    found = {
        path.relative_to(tmp_path / "review").as_posix(): path
        for path in (tmp_path / "review").rglob("*.png")
    }
    assert {name: sha256_of(path) for name, path in found.items()} == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"below": 0.5}, "copy_to"),
        ({"copy_to": Path("review")}, "below"),
        ({"below": 0.5, "copy_to": Path("images/3")}, "in the folder of images"),
        ({"below": 1.5, "copy_to": Path("review")}, "below"),
    ],
)
def test_copies_that_are_refused(
    request_: ScoringRequest,
    options: dict[str, Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=words):
        score_folder(replace(request_, **options))


def test_the_accuracy_names_its_mistakes(request_: ScoringRequest) -> None:
    table = score_folder(replace(request_, labels_from_folders=True))
    rows = read_predictions(table.folder)
    accuracy = table.manifest["accuracy"]
    low, high = accuracy["interval"]
    assert 0 <= low <= accuracy["accuracy"] <= high <= 1
    assert high - low > 0.1
    pairs = rows.groupby(["true_label", "label"]).size()
    confusion = {(true, label): n for true, row in accuracy["confusion"].items() for label, n in row.items()}
    assert confusion == pairs.to_dict()
    wrong = rows[rows["label"] != rows["true_label"]].sort_values("probability", ascending=False)
    assert [row["image_path"] for row in accuracy["worst_mistakes"]] == wrong["image_path"].tolist()
    report = (table.folder / "report.html").read_text()
    assert "Confusion matrix" in report
    assert "Most confident" in report


@pytest.fixture
def trained_on_some(bundle: ModelBundle, request_: ScoringRequest, tmp_path: Path) -> ModelBundle:
    """A bundle that lists two of the images as images of its training."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    files = sorted(Path(str(request_.images)).rglob("*.png"))[:2]
    rows = pq.read_table(folder / TRAINING_IMAGES_FILE)
    more = pa.table(
        {
            name: [sha256_of(file) if name == "sha256" else None for file in files]
            for name in rows.column_names
        },
        schema=rows.schema,
    )
    pq.write_table(pa.concat_tables([rows, more]), folder / TRAINING_IMAGES_FILE)
    return replace(bundle, folder=folder)


def test_images_of_the_training_are_marked_and_not_measured(
    request_: ScoringRequest, trained_on_some: ModelBundle, tmp_path: Path
) -> None:
    (tmp_path / "images/8/bad.png").write_bytes(b"no image")
    request = replace(request_, bundle=trained_on_some, mark_training_images=True, labels_from_folders=True)
    table = score_folder(replace(request, max_failure_rate=1))
    rows = read_predictions(table.folder)
    assert rows["seen_in_training"].tolist() == [True, True, *[False] * (COUNT - 1)]
    assert table.manifest["seen_in_training"] == 2
    assert table.manifest["accuracy"]["images"] == COUNT - 2
    (trained_on_some.folder / TRAINING_IMAGES_FILE).unlink()
    with pytest.raises(RequestError, match="mark_training_images"):
        score_folder(replace(request, output=tmp_path / "other"))
