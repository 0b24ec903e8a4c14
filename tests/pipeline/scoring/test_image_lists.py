"""Scoring the images of a list: one row for each of its rows, in its order, with its other columns."""

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.predictions.lookup import find_row
from pixelmill.pipeline.predictions.table import open_table
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import growing_limits, shard_key, write_shards
from pixelmill.pipeline.scoring.sources import source_of_table
from pixelmill.pipeline.scoring.worker.source_reader import read_image
from pixelmill.pipeline.scoring.worker.worker import score_shard
from pixelmill.pipeline.storage import children, is_remote, parse_location
from tests.conftest import write_images

COUNT = 11


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small shards, so that a table has several parts without thousands of images."""
    monkeypatch.setattr("pixelmill.pipeline.scoring.shards.FIRST_LIMIT", (4, 8 << 20))
    monkeypatch.setattr("pixelmill.pipeline.scoring.shards.BLOCK", 3)


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    write_images(tmp_path / "images", COUNT, seed=1)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=1)


def score_list(
    request: ScoringRequest, file: Path, output: str = "listed", **changes: Any
) -> PredictionTable:
    root = changes.pop("root", request.images)
    place = request.output.with_name(output)
    return score_folder(replace(request, images=file, output=place, root=root, **changes))


def names_of(request: ScoringRequest) -> list[str]:
    return sorted(path.name for path in children(request.images))


def predictions_by_path(request: ScoringRequest) -> pd.DataFrame:
    return read_predictions(score_folder(request).folder).set_index("image_path")


def write_csv(file: Path, rows: pd.DataFrame) -> Path:
    rows.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_rows_are_those_of_the_list(request_: ScoringRequest, form: Any, tmp_path: Path) -> None:
    names = names_of(request_)
    paths = [*names[::-1], "gone.png", names[0], names[3]]
    rows = pd.DataFrame({"file": paths, "label": [f"={n}" for n in range(len(paths))], "Width": "3"})
    listed = score_list(request_, write_csv(tmp_path / "list.csv", rows), format=form)
    found = read_predictions(listed.folder)
    assert found["image_path"].tolist() == paths
    assert found["label_listed"].tolist() == rows["label"].tolist()
    assert listed.manifest["passed_through"] == ["label_listed", "Width_listed"]
    assert listed.manifest["renamed_columns"] == {"label": "label_listed", "Width": "Width_listed"}
    counts = {name: listed.manifest[name] for name in ("listed", "scored", "failed")}
    assert counts == {"listed": COUNT + 3, "scored": COUNT + 2, "failed": 1}
    assert listed.manifest["failures"] == {"unreadable": 1}
    of_folder = predictions_by_path(request_)
    scored = found[found["status"] == "scored"].set_index("image_path")
    for name in ("image_sha256", "label", "probability"):
        assert scored[name].tolist() == of_folder[name].reindex(scored.index).tolist()


def test_forms_give_the_same_table_and_parquet_keeps_types(request_: ScoringRequest, tmp_path: Path) -> None:
    names = names_of(request_)
    table = pa.table({"image_path": names, "boxes": pa.array([[{"x": n}] for n in range(COUNT)])})
    pq.write_table(table, tmp_path / "list.parquet")
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    (tmp_path / "list.txt").write_text("\n".join(names))
    found = {}
    for form in ("parquet", "jsonl", "txt"):
        listed = score_list(request_, tmp_path / f"list.{form}", form)
        rows = ds.dataset(listed.folder / "predictions").to_table()
        found[form] = rows
        assert rows["image_path"].to_pylist() == names
    assert found["parquet"].schema.field("boxes").type == table.schema.field("boxes").type
    assert found["parquet"]["boxes"].to_pylist() == table["boxes"].to_pylist()
    assert found["jsonl"]["boxes"].to_pylist()[1] == '[{"x": 1}]'
    assert found["txt"]["probability"].to_pylist() == found["parquet"]["probability"].to_pylist()


def test_paths_that_lead_nowhere_are_failed_rows(request_: ScoringRequest, tmp_path: Path) -> None:
    first = names_of(request_)[0]
    whole, address = f"{request_.images}/{first}", f"file://{request_.images}/{first}"
    os.mkfifo(request_.images / "pipe")  # type: ignore[arg-type]
    lines = [
        *(first, whole, address, f"./{first}"),
        *("../out.png", f"../{request_.images.name}/{first}", "x" * 6000, "pipe", "", "a\0b.png", "."),
        *("nosuch://x/y.png", f"{first}/below.png", "a%20b.png"),
    ]
    content = [{"path": line} for line in lines]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in [*content, {"path": None}]))
    listed = score_list(request_, tmp_path / "list.jsonl", path_column="path")
    found = read_predictions(listed.folder)
    codes = [error.partition(":")[0] if isinstance(error, str) else "" for error in found["error"]]
    assert codes[:4] == [""] * 4
    assert codes[4:8] == ["bad_path", "bad_path", "unreadable", "not_a_file"]
    assert codes[8:] == ["bad_path", "bad_path", "not_a_file", *["unreadable"] * 3, "bad_path"]
    assert found["image_path"][13] == "a%2520b.png"
    assert found["label"][0] == found["label"][1] == found["label"][2]
    source = source_of_table(listed.manifest["request"])
    expected = (request_.images / first).read_bytes()
    assert [read_image(source, found["image_path"][at]) for at in range(4)] == [expected] * 4
    row = find_row(open_table(listed.folder), whole)
    assert row is not None
    assert row["label"] == found["label"][1]
    assert find_row(open_table(listed.folder), "no such path") is None


def test_true_labels_come_from_a_column(request_: ScoringRequest, tmp_path: Path) -> None:
    of_folder = predictions_by_path(request_)
    truth = of_folder["label"].tolist()
    truth[0], truth[1], truth[2] = "unknown", "", str((int(truth[2]) + 1) % 10)
    rows = pd.DataFrame({"image_path": of_folder.index, "class": truth})
    listed = score_list(request_, write_csv(tmp_path / "list.csv", rows), label_column="class")
    found = read_predictions(listed.folder)
    assert found["true_label"].fillna("").tolist() == truth
    accuracy = listed.manifest["accuracy"]
    assert (accuracy["images"], accuracy["correct"]) == (COUNT - 2, COUNT - 3)
    assert accuracy["not_classes"]["images_by_folder"] == {"unknown": 1}


def test_a_list_is_resumed_and_reused(request_: ScoringRequest, tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_path": [*names_of(request_), "later.png"], "n": range(COUNT + 1)})
    file = write_csv(tmp_path / "list.csv", rows)
    whole = read_predictions(score_list(request_, file, "whole", max_failure_rate=1).folder)
    request = replace(request_, images=file, root=request_.images)
    with lock_output(request.output):
        plan = plan_scoring(request)
        shards = list(write_shards(plan, growing_limits(), tapers=True))
        assert [shard_key(plan, shard.number) for shard in shards] == [shard.shard_key for shard in shards]
        for shard in shards[1:]:
            score_shard(str(request.work), shard.number)
    (request_.images / "later.png").write_bytes((request_.images / rows["image_path"][0]).read_bytes())
    again = score_folder(request)
    found = read_predictions(again.folder)
    assert found["n"].tolist() == rows["n"].astype(str).tolist()
    assert found["status"].tolist() == ["scored"] * (COUNT + 1)
    same = [name for name in found.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(found[same][:COUNT], whole[same][:COUNT])
    reused = score_list(request_, file, "reused", previous=again.folder)
    assert reused.manifest["reused"] == COUNT + 1


def test_a_changed_list_is_another_run(request_: ScoringRequest, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\n".join(names_of(request_)))
    score_list(request_, file)
    file.write_text("\n".join(names_of(request_)[1:]))
    with pytest.raises(RequestError, match="list_sha256"):
        score_list(request_, file)
    assert score_list(request_, file, fresh=True).manifest["listed"] == COUNT - 1


def test_a_list_that_changes_during_the_run(request_: ScoringRequest, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\n".join(names_of(request_)))
    request = replace(request_, images=file, root=request_.images)
    with lock_output(request.output):
        plan = plan_scoring(request)
        file.write_text("\n".join(names_of(request_)[1:]))
        with pytest.raises(WorkError, match="changed during the run"):
            list(write_shards(plan, growing_limits()))


def test_standard_input_has_one_path_a_line(
    request_: ScoringRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = names_of(request_)
    text = "\r\n".join(f"images/{name}" for name in names).encode()
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # The second run finds the finished table of the same list.
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        listed = score_list(request_, Path("-"), root=None)
    assert listed.manifest["request"]["images"] == "-"
    assert read_predictions(listed.folder)["image_path"].tolist() == [f"images/{name}" for name in names]
    assert not list(listed.folder.glob("**/list.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(RequestError, match="no rows"):
        score_list(request_, Path("-"), "empty", root=None)
    assert not (tmp_path / "empty").exists()


def test_a_list_of_addresses_with_a_remote_root(request_: ScoringRequest, tmp_path: Path) -> None:
    names = names_of(request_)
    remote = parse_location(f"file://{request_.images}")
    assert is_remote(remote)
    (request_.images / "empty.png").write_bytes(b"")
    paths = [names[0], str(remote / names[1]), "gone.png", "empty.png", f"{request_.images}/{names[2]}"]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    found = read_predictions(
        score_list(request_, tmp_path / "list.txt", root=remote, max_failure_rate=1).folder
    )
    codes = [error.partition(":")[0] if isinstance(error, str) else "" for error in found["error"]]
    assert codes == ["", "", "unreadable", "empty", ""]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("a,b\n1,2\n", {}, "no column with paths"),
        ("a,b\nx.png,y.png\n", {}, "columns with paths: a, b"),
        ("image_path\n", {}, "no rows"),
        ("a\nx.png\n", {"path_column": "b"}, "path_column"),
        ("a\nx.png\n", {"label_column": "aa"}, "label_column"),
        ("a\nx.png\n", {"trust_mtime": True, "previous": Path("out")}, "trust_mtime"),
        ("a\nx.png\n", {"root": Path("nowhere")}, "root"),
        ("a\nx.png\n", {"labels_from_folders": True}, "labels_from_folders"),
    ],
)
def test_lists_that_are_refused(
    request_: ScoringRequest, content: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(RequestError, match=words):
        score_list(request_, tmp_path / "list.csv", **options)
    assert not (tmp_path / "listed").exists()


def test_a_label_column_without_text_is_refused(request_: ScoringRequest, tmp_path: Path) -> None:
    table = pa.table({"image_path": names_of(request_), "boxes": pa.array([[1]] * COUNT)})
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(RequestError, match=r"label_column.*list<"):
        score_list(request_, tmp_path / "list.parquet", label_column="boxes")


def test_options_of_lists_are_refused_for_a_folder(request_: ScoringRequest) -> None:
    with pytest.raises(RequestError, match="label_column"):
        score_folder(replace(request_, label_column="a"))
    with pytest.raises(RequestError, match="is not a folder"):
        score_folder(replace(request_, images=request_.images / "none.csv"))
