"""The column `embedding`: what it holds, what reuses it, what refuses it, and the documented query."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from pixelmill.pipeline.artifacts import MANIFEST, read_json, write_json
from pixelmill.pipeline.bundles import EMBEDDINGS_FILE, PARITY_FILE, ModelBundle, open_bundle
from pixelmill.pipeline.bundles.golden import GOLDEN_FOLDER
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.embeddings import export_embeddings
from pixelmill.pipeline.export.held_out import from_folder
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import update_manifest, write_images

COUNT = 9


@pytest.fixture(scope="module")
def with_embeddings(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """A copy of the bundle with the second file, as an export with embeddings writes it."""
    folder = tmp_path_factory.mktemp("bundle") / "digits"
    shutil.copytree(bundle.folder, folder)
    copy = replace(bundle, folder=folder)
    held_out = from_folder(folder / GOLDEN_FOLDER, bundle.labels(), bundle.image_spec())
    parity = TypeAdapter(Parity).validate_python(read_json(folder / PARITY_FILE))
    size = export_embeddings(copy, held_out, parity)
    update_manifest(folder)
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), "embedding_size": size})
    return open_bundle(folder)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images/sevens", COUNT)
    (tmp_path / "images/sevens/00003.png").rename(tmp_path / "images/sevens/0001.png")
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "images/sevens/00001.png", tmp_path / "images/copy.png")
    return tmp_path / "images"


def score(bundle: ModelBundle, images: Path, output: str, **options: Any) -> PredictionTable:
    given = {"embeddings": True, "workers": 1, **options}
    return score_folder(ScoringRequest.from_options(bundle, images, images.with_name(output), given))


def test_every_scored_row_has_the_embedding_of_its_image(with_embeddings: ModelBundle, images: Path) -> None:
    table = score(with_embeddings, images, "scored")
    bundle = with_embeddings.with_embeddings()
    rows = pq.read_table(images.with_name("scored") / "predictions").to_pylist()
    assert len(rows) == COUNT + 2
    session, spec = load_session(bundle.onnx_path), bundle.image_spec()
    for row in rows:
        if row["status"] == "failed":
            assert np.isnan(row["embedding"]).all()
            continue
        pixels = decode((images / row["image_path"]).read_bytes(), spec).pixels[np.newaxis]
        probabilities, (expected,) = session.probabilities_and_embeddings(pixels)
        assert len(row["embedding"]) == bundle.embedding_size
        assert np.allclose(row["embedding"], expected, atol=1e-5)
        assert row["label"] == bundle.labels()[int(probabilities.argmax())]
        assert row["model_sha256"] == bundle.onnx_sha256
    plain = score(with_embeddings, images, "plain", embeddings=False)
    columns = ["image_path", "label", "status"]
    one, other = read_predictions(table.folder), read_predictions(plain.folder)
    assert one[columns].equals(other[columns])
    assert np.allclose(one["probability"].dropna(), other["probability"].dropna(), atol=1e-6)
    assert "embedding" not in other.columns


@pytest.mark.parametrize("trust_mtime", [False, True])
def test_rows_with_embeddings_are_reused(
    with_embeddings: ModelBundle, images: Path, trust_mtime: bool
) -> None:
    first = score(with_embeddings, images, "first", top_k=2)
    later = score(with_embeddings, images, "later", previous=first.folder, trust_mtime=trust_mtime)
    assert later.manifest["reused"] == COUNT + 1
    before, after = (
        read_predictions(table.folder).set_index("image_path")["embedding"] for table in (first, later)
    )
    for path, embedding in before.items():
        assert np.array_equal(embedding, after[str(path)], equal_nan=True)


def test_a_table_without_embeddings_is_not_reused(
    with_embeddings: ModelBundle, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = score(with_embeddings, images, "first", embeddings=False)
    with caplog.at_level("WARNING", logger="pixelmill.pipeline.scoring.reuse"):
        later = score(with_embeddings, images, "later", previous=first.folder)
    assert later.manifest["reused"] == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"no prediction of {first.folder} can be reused: it has no embeddings"
    ]


def test_a_resumed_run_keeps_the_embeddings(with_embeddings: ModelBundle, images: Path) -> None:
    first = read_predictions(score(with_embeddings, images, "scored").folder)
    (images / "broken.png").write_bytes((images / "copy.png").read_bytes())
    # Only the failed row is tried again.
    again = score(with_embeddings, images, "scored")
    assert again.manifest["failed"] == 0
    rows = read_predictions(again.folder).set_index("image_path")["embedding"]
    assert np.array_equal(rows["broken.png"], rows["copy.png"])
    assert np.isnan(first.set_index("image_path")["embedding"]["broken.png"]).all()
    for path, embedding in first[first["status"] == "scored"].set_index("image_path")["embedding"].items():
        assert np.array_equal(embedding, rows[str(path)])
    with pytest.raises(RequestError, match="contains a run with"):
        score(with_embeddings, images, "scored", embeddings=False)


def test_what_has_no_embeddings_is_refused_in_one_line(
    bundle: ModelBundle, with_embeddings: ModelBundle, images: Path
) -> None:
    with pytest.raises(RequestError, match=f"has no {EMBEDDINGS_FILE}.*export.embeddings=true"):
        score(bundle, images, "a")
    with pytest.raises(RequestError, match="with `format` csv"):
        score(with_embeddings, images, "b", format="csv")
    with pytest.raises(RequestError, match="precision fp16"):
        score(replace(with_embeddings, precision="fp16"), images, "c")


def test_the_query_of_the_documentation_finds_the_nearest(
    with_embeddings: ModelBundle, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(images / "sevens/0001.png", images / "twin.png")
    score(with_embeddings, images, "scored")
    page = Path(__file__).parents[3] / "docs/scoring.md"
    (query,) = re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(images.parent)
    found = duckdb.connect().execute(query).fetchall()
    assert len(found) == COUNT + 1
    path, _, similarity = found[0]
    assert path == "twin.png"
    assert similarity == pytest.approx(1, abs=1e-5)
    assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
