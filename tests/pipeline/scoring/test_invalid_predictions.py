"""Outputs that are not probabilities become failed rows, never scored, counted as correct or reused."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper

from pixelmill.pipeline.artifacts import MANIFEST, describe_file, read_json, write_json
from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.explain.explanation import explain_image
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import are_probabilities, describe_invalid
from pixelmill.pipeline.predictions import PARTS_FOLDER, read_predictions
from pixelmill.pipeline.predictions.parts import part_name
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import update_manifest

# The factor of an image's probabilities, by its first pixel.
FACTORS = {255: np.nan, 254: np.inf, 253: -1.0, 252: 2.0, 251: 0.0}
WORDS = {
    255: "invalid_prediction: 10 of 10 probabilities are NaN",
    254: "invalid_prediction: 10 of 10 probabilities are infinite",
    253: "invalid_prediction: a probability is -",
    252: "invalid_prediction: the probabilities sum to 2 instead of 1",
    251: "invalid_prediction: the probabilities sum to 0 instead of 1",
}


def spoiled(bundle: ModelBundle, folder: Path) -> ModelBundle:
    """A copy of a bundle whose outputs are not probabilities for some images."""
    shutil.copytree(bundle.folder, folder)
    model = onnx.load(folder / "model.onnx")
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["prediction" if name == output.name else name for name in node.output]
    factors = np.ones(256, np.float32)
    factors[list(FACTORS)] = list(FACTORS.values())
    constants: dict[str, npt.NDArray[Any]] = {
        "factors": factors,
        "starts": np.zeros(3, np.int64),
        "stops": np.ones(3, np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "flat": np.array([-1, 1], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["image", "starts", "stops", "axes"], ["corner"]),
            helper.make_node("Cast", ["corner"], ["index"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["factors", "index"], ["factor"], axis=0),
            helper.make_node("Reshape", ["factor", "flat"], ["by_row"]),
            helper.make_node("Mul", ["prediction", "by_row"], [output.name]),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    update_manifest(folder)
    return open_bundle(folder)


def write(folder: Path, name: str, corner: int, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 200, (8, 8, 1), np.uint8)
    pixels[0, 0] = corner
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode_png(pixels))


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    """Each kind of invalid prediction among valid ones, for every class, so that some would be correct."""
    images = tmp_path / "images"
    for digit in range(10):
        write(images, f"{digit}/good.png", 7)
        for corner in FACTORS:
            write(images, f"{digit}/{corner}.png", corner)
    return ScoringRequest(
        spoiled(bundle, tmp_path / "bundle"),
        images,
        tmp_path / "out",
        workers=1,
        labels_from_folders=True,
        max_failure_rate=1.0,
    )


def require_failed(table: PredictionTable) -> None:
    rows = read_predictions(table.folder)
    assert table.manifest["failures"] == {"invalid_prediction": 10 * len(FACTORS)}
    assert table.manifest["accuracy"]["images"] == table.manifest["scored"] == 10
    for row in rows.to_dict("records"):
        corner = Path(row["image_path"]).stem
        if corner == "good":
            assert row["status"] == "scored"
            continue
        assert row["status"] == "failed"
        assert row["error"].startswith(WORDS[int(corner)])
        assert pd.isna(row["label"])
        assert np.isnan(row["probability"])
        assert (row["width"], row["height"]) == (8, 8)


def test_outputs_that_are_not_probabilities_are_failed_rows(request_: ScoringRequest, tmp_path: Path) -> None:
    table = score_folder(request_)
    require_failed(table)
    require_failed(score_folder(replace(request_, output=tmp_path / "later", previous=table.folder)))


def test_invalid_rows_of_an_earlier_table_are_not_reused(request_: ScoringRequest, tmp_path: Path) -> None:
    table = score_folder(request_)
    part = table.folder / PARTS_FOLDER / part_name(0)
    rows = pq.read_table(part)
    names = rows.column_names
    good = rows.slice(rows["status"].to_pylist().index("scored"), 1)
    spoiled_rows = rows.to_pylist()
    for row in spoiled_rows:
        if row["status"] == "failed":
            corner = int(Path(row["image_path"]).stem)
            row.update(status="scored", error=None, label="1", class_index=1, probability=FACTORS[corner])
    columns: Any = {name: [row[name] for row in spoiled_rows] for name in names}
    table_type = good.schema
    kept = [place for place, row in enumerate(spoiled_rows) if "251" not in row["image_path"]]
    pq.write_table(pa.table(columns, schema=table_type).take(pa.array(kept)), part)
    manifest = read_json(table.folder / MANIFEST)
    manifest["files"][f"{PARTS_FOLDER}/{part.name}"] = describe_file(part)
    write_json(table.folder / MANIFEST, manifest)
    again = score_folder(replace(request_, output=tmp_path / "later", previous=table.folder))
    require_failed(again)


def test_explain_reports_the_invalid_prediction(request_: ScoringRequest, trained_store: Path) -> None:
    table = score_folder(request_)
    where = {"model": str(request_.bundle.folder), "keras": False}
    bad = explain_image(table.folder, "3/255.png", trained_store, **where)  # type: ignore[arg-type]
    assert bad.first_difference is None
    last = bad.stages[-1]
    assert (last.name, last.found["failure"]) == ("onnx", "invalid_prediction")
    good = explain_image(table.folder, "3/good.png", trained_store, **where)  # type: ignore[arg-type]
    assert good.first_difference is None
    assert good.stages[-1].found.get("failure") is None


def rows_of(*rows: Sequence[float]) -> Any:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("row", "is_valid"),
    [
        ([0.25, 0.75], True),
        ([1.0, 0.0], True),
        ([0.5, 0.5009], True),
        ([0.5, 0.502], False),
        ([1.0001, -0.0001], False),
        ([np.nan, 1.0], False),
        ([np.inf, -np.inf], False),
        ([0.0, 0.0], False),
    ],
)
def test_the_definition_of_probabilities(row: list[float], is_valid: bool) -> None:
    assert are_probabilities(rows_of(row)).tolist() == [is_valid]


@given(arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_every_row_that_is_refused_is_described(rows: Any) -> None:
    for row, is_valid in zip(rows, are_probabilities(rows), strict=True):
        if is_valid:
            assert abs(float(row.sum(dtype=np.float64)) - 1) <= 1e-3
        else:
            assert "probabilit" in describe_invalid(row)


def test_a_softmax_always_gives_probabilities() -> None:
    logits = np.random.default_rng(0).normal(0, 20, (100, 1000)).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert are_probabilities(exponentials / exponentials.sum(axis=1, keepdims=True)).all()
