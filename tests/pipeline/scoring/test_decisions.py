"""The column `decision`: in both formats, after a resumed run, and with reused rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, describe_file, read_json, sha256_of, write_json
from pixelmill.pipeline.bundles import METRICS_FILE, ONNX_FILE, ModelBundle, open_bundle
from pixelmill.pipeline.bundles.metadata import DECISION_THRESHOLDS
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import write_images

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, None, 0.2, 0.9)


def with_thresholds(
    bundle: ModelBundle, folder: Path, thresholds: tuple[float | None, ...], in_metadata: bool = True
) -> ModelBundle:
    """A copy of a bundle whose recipe named a wanted precision."""
    shutil.copytree(bundle.folder, folder)
    model = onnx.load(folder / ONNX_FILE)
    if in_metadata:
        model.metadata_props.add(key=DECISION_THRESHOLDS, value=json.dumps(thresholds))
    onnx.save(model, folder / ONNX_FILE)
    rows = [{"class": str(index), "threshold": value} for index, value in enumerate(thresholds)]
    write_json(folder / METRICS_FILE, {**read_json(folder / METRICS_FILE), "thresholds": rows})
    manifest = read_json(folder / MANIFEST)
    for name in (ONNX_FILE, METRICS_FILE):
        manifest["files"][name] = describe_file(folder / name)
    write_json(folder / MANIFEST, manifest)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def deciding(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return with_thresholds(bundle, tmp_path_factory.mktemp("deciding") / "bundle", THRESHOLDS)


def test_both_formats_have_the_same_decisions_and_the_manifest_counts_them(
    deciding: ModelBundle, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 60)
    (tmp_path / "images/damaged.png").write_bytes(b"no image")
    tables = {
        kind: score_folder(
            ScoringRequest(
                deciding, tmp_path / "images", tmp_path / kind, format=kind, max_failure_rate=1, workers=1
            )
        )
        for kind in ("parquet", "csv")
    }
    frames = {kind: read_predictions(tmp_path / kind) for kind in tables}
    limits = np.array([np.inf if limit is None else limit for limit in THRESHOLDS], np.float32)
    for kind, frame in frames.items():
        names = list(frame.columns)
        assert names.index("decision") == names.index("probability") + 1
        read = frame[frame["status"] == "scored"]
        accepted = read["probability"].to_numpy() >= limits[read["class_index"].to_numpy(int)]
        assert (read["decision"] == np.where(accepted, "accept", "review")).all()
        assert frame[frame["status"] == "failed"]["decision"].isna().all()
        counts = {"accept": int(accepted.sum()), "review": int((~accepted).sum())}
        assert tables[kind].manifest["decisions"] == counts
        assert min(counts.values()) > 0


def test_reused_rows_are_decided_again(deciding: ModelBundle, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 40)
    first = score_folder(ScoringRequest(deciding, tmp_path / "images", tmp_path / "csv", format="csv"))
    second = score_folder(
        ScoringRequest(deciding, tmp_path / "images", tmp_path / "again", previous=tmp_path / "csv")
    )
    assert second.manifest["reused"] == 40
    assert second.manifest["decisions"] == first.manifest["decisions"]


def test_a_table_of_a_model_without_thresholds_has_no_such_column(
    bundle: ModelBundle, deciding: ModelBundle, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 10)
    plain = score_folder(ScoringRequest(bundle, tmp_path / "images", tmp_path / "plain"))
    assert "decisions" not in plain.manifest
    assert "decision" not in read_predictions(tmp_path / "plain").columns
    # The thresholds are in the ONNX file, so that it is another model, whose rows are not reused.
    other = score_folder(
        ScoringRequest(deciding, tmp_path / "images", tmp_path / "other", previous=tmp_path / "plain")
    )
    assert other.manifest["reused"] == 0
    assert sum(other.manifest["decisions"].values()) == 10


def test_an_onnx_file_with_other_thresholds_than_its_bundle_is_refused(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    odd = with_thresholds(bundle, tmp_path / "bundle", THRESHOLDS, in_metadata=False)
    assert odd.onnx_sha256 == sha256_of(odd.folder / ONNX_FILE)
    write_images(tmp_path / "images", 3)
    with pytest.raises(RequestError, match=r"decision_thresholds differs from metrics\.json"):
        score_folder(ScoringRequest(odd, tmp_path / "images", tmp_path / "out"))
