"""`pixelmill verify` as a user runs it."""

import shutil
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.bundles import ModelBundle
from tests.conftest import Run, list_files_anew


def test_the_table_says_what_every_engine_gave(run: Run, trained_store: Path) -> None:
    answer = run("verify", "digits@champion", "--store", trained_store)
    assert answer.code == 0, answer.errors
    lines = answer.output.splitlines()
    assert "4 of 4 golden images match their golden tensor." in lines
    (line,) = [line for line in lines if line.startswith("onnxruntime ")]
    assert line.endswith("agrees")
    told = run("verify", "digits@champion", "--store", trained_store, "--engine", "reference", "--json").json
    assert told["agrees"] is True
    assert [check["engine"] for check in told["engines"]] == ["reference"]
    assert told["engines"][0]["difference"] < 1e-5


def test_a_difference_ends_with_three(run: Run, bundle: ModelBundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    probabilities = np.load(copy / "golden/probabilities.npy")
    write_array(copy / "golden/probabilities.npy", probabilities[::-1])
    tampered = run("verify", copy)
    assert tampered.code == 1
    assert "has SHA-256" in tampered.last_error
    list_files_anew(copy)
    answer = run("verify", copy)
    assert answer.code == 3
    assert "differs" in answer.output
    assert answer.last_error.startswith("pixelmill: different results from onnxruntime")
    assert "Traceback" not in answer.errors


def test_bad_requests_are_one_line(run: Run, trained_store: Path, tmp_path: Path) -> None:
    for arguments in (["verify", tmp_path], ["verify", "digits@9", "--store", trained_store]):
        answer = run(*arguments)
        assert answer.code == 2
        (line,) = answer.errors.strip().splitlines()
        assert line.startswith("pixelmill: ")
    assert run("verify", "digits@1", "--engine", "none", "--store", trained_store).code == 2
