"""Messages on the terminal name options instead of fields."""

from pathlib import Path

from pixelmill.pipeline.bundles import ModelBundle
from tests.conftest import Run, write_images


def test_a_field_is_shown_as_the_option_of_its_command(
    run: Run, bundle: ModelBundle, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 1)
    score = ("score", bundle.folder, tmp_path / "images", "--output", tmp_path / "out")
    result = run(*score, "--top-k", "0")
    assert result.code == 2
    assert result.last_error == "pixelmill: --top-k 0; expected at least 1. Correct the option."
    result = run(*score, "--trust-mtime")
    assert result.last_error.startswith("pixelmill: --trust-mtime without --previous; expected")
    result = run(*score, "--executor", "dask")
    assert result.last_error.startswith("pixelmill: --executor dask with --dask-address None; expected")
    result = run("models", "show", "none@1", "--store", tmp_path)
    assert result.last_error.endswith("or choose another store with --store.")


def test_an_override_is_shown_as_it_is_written_there(run: Run, tmp_path: Path) -> None:
    result = run("retrain", "digits", "--set", "epochs", "--store", tmp_path)
    assert result.last_error.endswith("For example: --set training.epochs=3.")
    result = run("retrain", "folder", "--set", f"dataset.path={tmp_path / 'none'}", "--store", tmp_path)
    assert result.last_error.endswith("Set it with --set dataset.path=FOLDER.")
