"""The command as users and scripts run it: output, exit codes, errors in one line."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from pixelmill.pipeline.artifacts import sha256_of
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.recipes import shipped_recipes
from tests.conftest import (
    PIXELMILL,
    CommandResult,
    Run,
    on_small_disk,
    start_interruptible,
    update_manifest,
    write_images,
)


def refused(result: CommandResult, code: int, *words: str) -> None:
    """One clear line on standard error, the right exit code, no traceback."""
    assert result.code == code, result.errors
    assert "Traceback" not in result.errors
    assert result.output == ""
    assert result.last_error.startswith("pixelmill: ")
    for word in words:
        assert word in result.last_error, result.last_error


@pytest.fixture
def store(trained_store: Path, tmp_path: Path) -> Path:
    """A copy of the store with one promoted model, which tests may modify."""
    return Path(shutil.copytree(trained_store / "models", tmp_path / "store/models")).parent


def test_models_show_as_json(run: Run, trained_store: Path) -> None:
    shown = run("models", "show", "digits@champion", "--store", trained_store, "--json").json
    assert (shown["name"], shown["version"], shown["aliases"]) == ("digits", 1, ["champion"])
    assert shown["metrics"]["test"]["accuracy"] > 0.95
    assert 0 < shown["metrics"]["test"]["loss"] < 0.3
    assert shown["parity"]["images"] == shown["metrics"]["test"]["images"] == 359
    assert shown["parity"]["label_flips"] == 0
    assert shown["parity"]["max_abs_difference"] < 1e-5
    assert shown["parameters"] == 29_098
    assert Path(shown["folder"]) == trained_store / "models/digits/1"


def test_models_are_listed(run: Run, trained_store: Path, tmp_path: Path) -> None:
    assert "digits@1" in run("models", "--store", trained_store).output
    listed = run("models", "list", "--json", env={"PIXELMILL_STORE": str(trained_store)}).json
    assert [model["version"] for model in listed["models"]] == [1]
    assert "No models" in run("models", "--store", tmp_path / "new").output
    assert not (tmp_path / "new").exists()


def test_an_unknown_model_lists_the_existing_ones(run: Run, trained_store: Path, tmp_path: Path) -> None:
    for command in (("models", "show", "digits@2"), ("models", "promote", "mnist@champion")):
        result = run(*command, "--store", trained_store)
        refused(result, 2, "digits@champion", "digits@1")
    images = tmp_path / "images"
    write_images(images, 1)
    result = run("score", "digits@best", images, "--output", tmp_path / "out", "--store", trained_store)
    refused(result, 2, "'digits@best'", "digits@champion, digits@1")
    result = run("score", "digits@1", images, "--output", tmp_path / "out", "--store", tmp_path / "new")
    refused(result, 2, "contains none", "pixelmill retrain")
    assert not (tmp_path / "out").exists()


def test_promote_and_rollback(run: Run, store: Path) -> None:
    shutil.copytree(store / "models/digits/1", store / "models/digits/2")
    manifest = store / "models/digits/2/manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    assert run("models", "promote", "digits@2", "--store", store, "--json").json == {
        "name": "digits",
        "alias": "champion",
        "version": 2,
    }
    assert run("models", "show", "digits@champion", "--store", store, "--json").json["version"] == 2
    assert "now version 1" in run("models", "rollback", "digits", "--store", store).output
    refused(run("models", "rollback", "digits", "--store", store), 2, "no earlier version")
    assert run("models", "show", "digits@champion", "--store", store, "--json").json["version"] == 1


def test_score_as_json(run: Run, trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 30)
    (tmp_path / "images/bad.png").write_bytes(b"bad")
    result = run(
        "score",
        "digits@champion",
        tmp_path / "images",
        "--output",
        tmp_path / "out",
        "--store",
        trained_store,
        "--max-failure-rate",
        "0.1",
        "--json",
    )
    assert result.code == 0, result.errors
    counts = result.json
    assert (counts["listed"], counts["scored"], counts["failed"]) == (31, 30, 1)
    assert counts["failures"] == {"not_an_image": 1}
    assert counts["provider"] == "CPUExecutionProvider"
    assert counts["threads"] >= 1
    assert counts["images_per_second"] > 0
    assert counts["seconds"] > 0
    assert len(read_predictions(tmp_path / "out")) == 31
    assert counts["drift"]["verdict"] == "drifted"
    assert {"measure", "value", "threshold", "verdict"} <= set(counts["drift"]["measures"][0])
    assert not counts["expected_accuracy"]["reliable"]


def test_too_much_drift_exits_with_3_after_writing_the_table(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 30)
    command = ("score", "digits@1", tmp_path / "images", "--output", tmp_path / "out")
    result = run(*command, "--store", trained_store, "--max-drift", "0.2")
    assert result.code == 3
    assert "expected a drift of at most 0.2 beyond chance" in result.last_error
    assert "or raise --max-drift" in result.last_error
    assert "not to be relied on because of the drift" in result.output
    assert len(read_predictions(tmp_path / "out")) == 30


def test_too_many_failures_exit_with_3_after_writing_the_table(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 9)
    (tmp_path / "images/bad.png").write_bytes(b"bad")
    command = ("score", "digits@1", tmp_path / "images", "--output", tmp_path / "out")
    result = run(*command, "--store", trained_store, "--json")
    assert result.code == 3
    assert result.json["failed"] == 1
    assert "1 of 10 images failed (not_an_image 1)" in result.last_error
    assert (tmp_path / "out/manifest.json").is_file()
    assert len(read_predictions(tmp_path / "out")) == 10


def test_a_bundle_is_scored_by_its_folder(run: Run, trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    copy = shutil.copytree(trained_store / "models/digits/1", tmp_path / "received")
    command = ("score", copy, tmp_path / "images", "--output")
    assert run(*command, tmp_path / "out", "--format", "csv", "--top-k", "2").code == 0
    assert (tmp_path / "out/predictions.csv").read_text().count("\n") == 4
    (copy / "model.onnx").write_bytes(bytes((copy / "model.onnx").stat().st_size))
    refused(run(*command, tmp_path / "other"), 1, "SHA-256")


def test_globs_select_the_listed_files(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images / "a", 3)
    (images / "a/00001.png").rename(images / "a/00001.data")
    (images / "a/00002.png").rename(images / "a/scan-2")
    options = ("--output", tmp_path / "out", "--store", trained_store, "--json")
    result = run("score", "digits@1", images, *options, "--glob", "*.data", "--glob", "scan-?")
    assert result.code == 0, result.errors
    assert result.json["request"]["globs"] == ["*.data", "scan-?"]
    assert read_predictions(tmp_path / "out")["image_path"].tolist() == ["a/00001.data", "a/scan-2"]
    refused(run("score", "digits@1", images, *options), 2, "contains a run with globs")
    other = ("--output", tmp_path / "other", "--store", trained_store)
    refused(run("score", "digits@1", images, *other, "--glob", "*.jpg"), 2, "contains no images", "*.jpg")


def test_folder_names_can_be_true_labels(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    for folder in ("3", "=8", "no digit"):
        write_images(images / folder / "deeper", 20, seed=len(folder))
    write_images(images, 5, seed=9)
    (images / "3/bad.png").write_bytes(b"bad")
    command = ("score", "digits@1", images, "--labels-from-folders", "--max-failure-rate", "0.1")
    result = run(*command, "--output", output, "--store", trained_store)
    assert result.code == 0, result.errors
    rows = read_predictions(output)
    in_folder = rows[rows["image_path"].str.contains("/")]
    assert in_folder["true_label"].tolist() == in_folder["image_path"].str.split("/").str[0].tolist()
    assert rows.loc[~rows["image_path"].str.contains("/"), "true_label"].isna().all()
    scored = in_folder[(in_folder["status"] == "scored") & (in_folder["true_label"] == "3")]
    right = scored["label"] == scored["true_label"]
    accuracy = json.loads((output / "manifest.json").read_text())["accuracy"]
    assert (accuracy["images"], accuracy["correct"]) == (len(scored), right.sum()) == (20, right.sum())
    assert accuracy["accuracy"] == right.mean()
    assert accuracy["classes"] == {"3": {"images": 20, "correct": right.sum()}}
    left_out = {"images": 40, "folders": 2, "images_by_folder": {"=8": 20, "no digit": 20}}
    assert accuracy["not_classes"] == left_out
    low, high = accuracy["interval"]
    assert (
        f"accuracy: {right.mean():.4f} (95% interval {low:.4f} to {high:.4f}) on 20 images" in result.output
    )
    words = "40 images in 2 folders that are not classes of the model (=8, no digit)"
    assert f"not in the accuracy: {words}" in result.output
    assert "failed: not_an_image 1 (3/bad.png)" in result.output


def test_folders_that_are_not_classes_are_refused_before_any_work(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_images(images, 1)
    command = ("score", "digits@1", images, "--labels-from-folders", "--store", trained_store)
    refused(run(*command, "--output", tmp_path / "out"), 2, f"{images} has no folders")
    write_images(images / "2026-01", 1)
    refused(run(*command, "--output", tmp_path / "out"), 2, "the folder '2026-01'; expected", "'0', '1', '2'")
    write_images(images / "cam\u202e7", 1)
    result = run(*command, "--output", tmp_path / "out")
    refused(result, 2, "folders such as '2026-01', 'cam\\u202e7'; expected")
    assert not (tmp_path / "out").exists()


def test_skipped_and_failed_files_are_reported(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images / "a", 2)
    for name in ("b.cr2", "c.CR2", "notes.txt", "a/@eaDir/00000.png", ".DS_Store", "plain"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"")
    (images / "linked").symlink_to(tmp_path)
    for number in range(4):
        (images / f"a/bad{number}.png").write_bytes(b"")
    (images / "a/evil\u202egnp.png").write_bytes(b"no image")
    command = ("score", "digits@1", images, "--output", tmp_path / "out", "--store", trained_store)
    result = run(*command, "--max-failure-rate", 1)
    assert result.code == 0, result.errors
    said = "4 files (.cr2 2, .txt 1, no extension 1), 1 linked folder, clutter (.DS_Store 1, @eaDir 1)"
    assert f"Skipped: {said}\n" in result.output
    assert "  failed: empty 4 (a/bad0.png, a/bad1.png, a/bad2.png, ...)\n" in result.output
    assert "  failed: not_an_image 1 (a/evil\\u202egnp.png)\n" in result.output
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["passed_over"] == 7
    assert manifest["passed_over_kinds"]["extensions"] == {".cr2": 2, ".txt": 1, "no extension": 1}
    report = (tmp_path / "out/report.html").read_text()
    assert said in report
    assert "a/evil\\u202egnp.png" in report
    assert "\u202e" not in report


def test_real_digits_have_the_accuracy_of_the_test_split(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = tmp_path / f"images/{label}/{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png((pixels * 255 / 16).round().astype(np.uint8)))
    options = ("--output", tmp_path / "out", "--store", trained_store, "--json")
    counts = run("score", "digits@1", tmp_path / "images", *options, "--labels-from-folders").json
    assert counts["accuracy"]["images"] == 1797
    assert counts["accuracy"]["accuracy"] > 0.95
    assert set(counts["accuracy"]["classes"]) == set("0123456789")


def test_rows_are_reused_from_an_earlier_table(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, 40)
    command = ("score", "digits@1", images, "--store", trained_store)
    assert run(*command, "--output", tmp_path / "first").code == 0
    first = read_predictions(tmp_path / "first")
    (images / "00000.png").rename(images / "moved.png")
    (images / "00001.png").write_bytes((images / "00002.png").read_bytes() + b"more")
    for name, options in (("bytes", ()), ("times", ("--trust-mtime",))):
        output = tmp_path / name
        result = run(*command, "--output", output, "--previous", tmp_path / "first", *options)
        assert result.code == 0, result.errors
        assert f"taken from {tmp_path / 'first'}: 39" in result.output
        counts = json.loads((output / "manifest.json").read_text())
        assert (counts["listed"], counts["reused"], counts["computed"]) == (40, 39, 1)
        assert counts["previous"] == str(tmp_path / "first")
        rows = read_predictions(output).set_index("image_path")
        known = first.set_index("image_path").rename({"00000.png": "moved.png"}).drop("00001.png")
        data = ["image_sha256", "status", "label", "class_index", "probability", "width", "height"]
        pd.testing.assert_frame_equal(rows.loc[known.index, data], known[data])
        assert rows.loc[["00001.png", "00002.png"], "label"].nunique() == 1
    new = ("--output", tmp_path / "new")
    refused(run(*command, *new, "--trust-mtime"), 2, "--trust-mtime without --previous")
    for other in (images, tmp_path / "nowhere"):
        refused(run(*command, *new, "--previous", other), 2, str(other))
    assert not (tmp_path / "new").exists()


def quantize(bundle: Path, images: Path) -> None:
    """Add an 8-bit variant to a bundle like an export: the file, and its entry in the manifest."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._paths = iter(sorted(images.glob("*.png")))

        def get_next(self) -> dict[str, object] | None:
            for path in self._paths:
                return {"image": np.asarray(Image.open(path)).reshape(1, 8, 8, 1)}
            return None

    variant = bundle / "model.int8.onnx"
    # Except the softmax, whose output would no longer add up to 1.
    quantize_static(bundle / "model.onnx", variant, Reader(), op_types_to_quantize=["Conv", "MatMul"])
    update_manifest(bundle)


def test_a_precision_is_used_if_the_bundle_has_it(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    write_images(images, 30)
    bundle = Path(shutil.copytree(trained_store / "models/digits/1", tmp_path / "bundle"))
    command = ("score", bundle, images, "--output", output, "--precision", "int8")
    refused(run(*command), 2, "precision int8", "has no model.int8.onnx", "one of fp32")
    assert not output.exists()
    quantize(bundle, images)
    counts = run(*command, "--json").json
    assert counts["request"]["precision"] == "int8"
    assert counts["request"]["model_sha256"] == sha256_of(bundle / "model.int8.onnx")
    assert counts["run"]["model_sha256"] == counts["request"]["model_sha256"]
    session = onnxruntime.InferenceSession(bundle / "model.int8.onnx")
    rows = read_predictions(output)
    for _, row in rows.iterrows():
        pixels = np.asarray(Image.open(images / str(row["image_path"]))).reshape(1, 8, 8, 1)
        (probabilities,) = session.run(None, {"image": pixels})
        assert row["class_index"] == probabilities[0].argmax()
        assert row["probability"] == pytest.approx(probabilities[0].max(), abs=1e-6)
    # A different precision is a different run.
    refused(run(*command[:-1], "fp32"), 2, "contains a run with model_sha256")


def test_a_killed_run_resumes(run: Run, trained_store: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    write_images(images, 12_000)
    options = ["--output", str(output), "--store", str(trained_store), "--workers", "1", "--json"]
    command = [str(PIXELMILL), "score", "digits@1", str(images), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (output / ".pixelmill/parts/part-00001.parquet").exists():
            pass
        process.send_signal(signal.SIGKILL)
    assert not (output / "manifest.json").exists()
    kept = len(list(output.glob(".pixelmill/parts/part-*.parquet")))
    assert kept >= 2
    counts = run(*command[1:]).json
    assert counts["listed"] == counts["scored"] == 12_000
    assert counts["computed"] <= 12_000 - 1024 * kept
    rows = read_predictions(output)
    assert rows["image_path"].tolist() == sorted(path.name for path in images.iterdir())
    assert rows["run_id"].nunique() == 1


def test_ctrl_c_says_how_to_resume(trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 12_000)
    output = tmp_path / "out"
    options = ["--output", str(output), "--store", str(trained_store), "--workers", "1"]
    command = [str(PIXELMILL), "score", "digits@1", str(tmp_path / "images"), *options]
    with start_interruptible(command) as process:
        while process.poll() is None and not (output / ".pixelmill/parts/part-00000.parquet").exists():
            pass
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read() if process.stderr else ""
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Run the same command again to resume" in errors.strip().splitlines()[-1]


def test_a_full_disk_is_one_line_and_loses_nothing(trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3000)
    disk = tmp_path / "disk"
    score = f"{PIXELMILL} score digits@1 {tmp_path}/images --store {trained_store}"
    # An earlier table is on the same disk, and a second one does not fit.
    script = (
        f"{score} --output {disk}/first >/dev/null 2>&1; echo first $?; "
        f"cp -r {disk}/first {tmp_path}/before; "
        f"dd if=/dev/zero of={disk}/filler bs=4096 2>/dev/null; truncate -s -40960 {disk}/filler; "
        f"{score} --output {disk}/second >/dev/null; echo second $?; "
        f"diff -r {disk}/first {tmp_path}/before && echo same; "
        f"test -e {disk}/second/manifest.json || echo none"
    )
    done = on_small_disk(["sh", "-c", script], disk, "4m")
    assert done.stdout.split("\n")[:4] == ["first 0", "second 1", "same", "none"], done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pixelmill: ")
    assert "No space left on device" in last


def test_invalid_paths_are_one_line_and_nothing_is_lost(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3)
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out"
    options = ("--output", output, "--store", trained_store)
    assert run("score", "digits@1", tmp_path / "images", *options).code == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    refused(run("score", "digits@1", tmp_path / "images", *options, "--top-k", "2"), 2, "top_k 1", "--fresh")
    refused(run("score", "digits@1", tmp_path / "empty", *options), 2, "contains a run with images")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    new = ("--output", tmp_path / "new", "--store", trained_store)
    refused(run("score", "digits@1", tmp_path / "empty", *new), 2, "contains no images")
    refused(run("score", "digits@1", tmp_path / "gone", *new), 2, "is not a folder")
    refused(run("score", tmp_path / "images", tmp_path / "images", *new), 2, "has no manifest.json")
    refused(run("score", output, tmp_path / "images", *new), 2, "an artifact of kind prediction-table")
    refused(run("models", "--store", tmp_path / "images/00000.png"), 2, "is a file")
    refused(run("models", "--json", "list"), 2, "options after the subcommand")
    (tmp_path / "file").touch()
    refused(run("score", "digits@1", tmp_path / "images", *options[2:], "--output", tmp_path / "file"), 2)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retrain", "mnits"), ("'mnits'", "Did you mean mnist?")),
        (("retrain", "digits", "--set", "training.epoch=3"), ("training.epoch", "Did you mean epochs?")),
        (("retrain", "digits", "--set", "training.epochs=0"), ("training.epochs is 0",)),
        (("retrain", "digits", "--set", "epochs"), ("KEY=VALUE",)),
        (("retrain", "digits", "--store", "nonsense://bucket/store"), ("nonsense://bucket/store",)),
        (("recipes", "show", "nothing"), ("digits, fashion-mnist, folder, mnist",)),
        (("models", "promote", "digits@1", "--alias", "No Name"), ("no model", "contains none")),
    ],
)
def test_an_invalid_request_is_one_line_with_exit_code_2(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(run(*arguments, cwd=tmp_path), 2, *words)
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_a_recipe_file_is_reported_with_the_file(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    shown = run("recipes", "show", "digits").output
    recipe.write_text(shown.replace("kernel_size", "kernel", 1))
    refused(
        run("retrain", recipe, cwd=tmp_path), 2, str(recipe), "model.layers.0", "Did you mean kernel_size?"
    )
    recipe.write_text(shown)
    assert run("recipes", "show", recipe).output == shown


@pytest.mark.parametrize(
    "settings",
    [{"PREFECT_API_URL": "http://127.0.0.1:9/api"}, {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}],
    ids=["a server that is gone", "no server"],
)
def test_a_prefect_server_that_does_not_respond_is_one_line(
    run: Run, tmp_path: Path, settings: dict[str, str]
) -> None:
    result = run("retrain", "digits", cwd=tmp_path, env=settings)
    refused(result, 1, "no Prefect server responds", "prefect server start")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_prefect_home_is_one_line(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()
    for settings in ({"HOME": str(home), "PREFECT_HOME": ""}, {"PREFECT_HOME": str(home / "prefect")}):
        result = run("retrain", "digits", cwd=tmp_path, env=settings)
        refused(result, 1, "Prefect cannot write to", str(home), "PREFECT_HOME=")
    result = run("retrain", "digits", cwd=tmp_path, env={"PREFECT_HOME": "~nobody-of-this-name/prefect"})
    refused(result, 1, "Prefect cannot write to", "PREFECT_HOME=")
    assert list(tmp_path.iterdir()) == [home]


def test_usage_errors_have_exit_code_2(run: Run) -> None:
    for arguments in (("score",), ("nothing",), ("score", "m", "i", "--output", "o", "--format", "xls")):
        result = run(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.errors


def test_recipes_are_listed_as_json(run: Run) -> None:
    assert run("recipes", "list", "--json").json == {"recipes": list(shipped_recipes())}
