"""`pixelmill verify` as a user runs it."""

import shutil
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.bundles import ModelBundle
from tests.conftest import Run, update_manifest


def test_the_table_shows_the_result_of_every_engine(run: Run, trained_store: Path) -> None:
    result = run("verify", "digits@champion", "--store", trained_store)
    assert result.code == 0, result.errors
    lines = result.output.splitlines()
    assert "4 of 4 golden images match their golden tensor." in lines
    (line,) = [line for line in lines if line.startswith("onnxruntime ")]
    assert line.endswith("agrees")
    described = run(
        "verify", "digits@champion", "--store", trained_store, "--engine", "reference", "--json"
    ).json
    assert described["agrees"] is True
    assert [check["engine"] for check in described["engines"]] == ["reference"]
    assert described["engines"][0]["difference"] < 1e-5


def test_a_difference_has_exit_code_3(run: Run, bundle: ModelBundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    probabilities = np.load(copy / "golden/probabilities.npy")
    write_array(copy / "golden/probabilities.npy", probabilities[::-1])
    tampered = run("verify", copy)
    assert tampered.code == 1
    assert "has SHA-256" in tampered.last_error
    update_manifest(copy)
    result = run("verify", copy)
    assert result.code == 3
    assert "differs" in result.output
    assert result.last_error.startswith("pixelmill: different results from onnxruntime")
    assert "Traceback" not in result.errors


def test_invalid_requests_are_one_line(run: Run, trained_store: Path, tmp_path: Path) -> None:
    for arguments in (["verify", tmp_path], ["verify", "digits@9", "--store", trained_store]):
        result = run(*arguments)
        assert result.code == 2
        (line,) = result.errors.strip().splitlines()
        assert line.startswith("pixelmill: ")
    assert run("verify", "digits@1", "--engine", "none", "--store", trained_store).code == 2
