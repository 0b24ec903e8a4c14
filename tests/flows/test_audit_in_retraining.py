"""The audit of a retraining: its page lies with the run, and it stops a run before it trains."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import read_json
from tests.conftest import Run
from tests.flows.commands.test_audit import write_sound


def test_a_run_has_its_audit_with_predictions(trained_store: Path) -> None:
    (content,) = (read_json(path) for path in trained_store.glob("runs/*/audit/audit.json"))
    assert content["images"] == 1797
    assert content["findings"]["duplicate"] == []
    for finding in content["findings"]["label_error"]:
        assert finding["suggested_label"] != finding["label"]
    (predictions,) = trained_store.glob("runs/*/training_probabilities.npy")
    (rows,) = trained_store.glob("datasets/*/images.parquet")
    trained = pq.read_table(rows, filters=[("split", "=", "train")])
    assert np.load(predictions).shape == (len(trained), 10)
    (page,) = trained_store.glob("runs/*/audit/index.html")
    assert "Audit of digits" in page.read_text()


def test_findings_that_stop_end_the_run_before_the_training(run: Run, tmp_path: Path) -> None:
    images, store = tmp_path / "images", tmp_path / "store"
    write_sound(images)
    (images / "grass/also a brick.png").write_bytes((images / "brick/0004.png").read_bytes())
    options = ("--set", f"dataset.path={images}", "--set", "dataset.audit.contradiction=stop")
    answer = run("retrain", "folder", *options, "--store", store)
    assert answer.code == 3
    assert answer.last_error.startswith(
        "pixelmill: the audit found contents in two classes: 2 (brick/0004.png, grass/also a brick.png)"
    )
    assert not list(store.glob("runs/*/training"))
    assert list(store.glob("runs/*/audit/audit.json"))
