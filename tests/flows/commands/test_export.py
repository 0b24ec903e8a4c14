"""`pixelmill export` as a user runs it."""

import json
from pathlib import Path

import onnx
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, sha256_of, verify_files
from pixelmill.pipeline.bundles import ModelBundle
from tests.conftest import PIXELMILL, Run, on_small_disk
from tests.s3 import s3_server


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def test_a_bundle_is_copied_unchanged_to_any_folder(
    run: Run, trained_store: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    result = run("export", "digits@champion", "--store", trained_store, "--output", tmp_path / "a/b")
    assert result.code == 0, result.errors
    assert contents(tmp_path / "a/b") == contents(bundle.folder)
    again = run("export", bundle.folder, "--output", tmp_path / "a/b")
    assert again.code == 2
    assert "which is not empty; expected a new folder" in again.last_error
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/mine.txt").write_text("mine")
    assert run("export", bundle.folder, "--output", tmp_path / "kept").code == 2
    assert (tmp_path / "kept/mine.txt").read_text() == "mine"


def test_a_bundle_is_exported_to_an_address(run: Run, bundle: ModelBundle, tmp_path: Path) -> None:
    with s3_server() as s3, s3.bucket("bucket"):
        s3.failing = 0.1
        environment = {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = ("export", bundle.folder, "--output", "s3://bucket/out")
        result = run(*command, "--json", env=environment)
        assert result.code == 0, result.errors
        assert result.json["parity"]["label_flips"] == 0
        s3.failing = 0.0
        assert contents(s3.download("bucket", "out", tmp_path / "copy")) == contents(bundle.folder)
        # The manifest was written last, and a folder without it is not a bundle.
        written = [path for method, path, failed in s3.requests if method == "PUT" and not failed]
        assert written[-1].rstrip("?").endswith(f"out/{MANIFEST}")
        assert run(*command, env=environment).code == 2


def test_an_older_runtime_gets_an_older_opset(
    run: Run, trained_store: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    result = run(
        *("export", "digits@1", "--store", trained_store, "--output", tmp_path / "old"),
        *("--runtime-version", "1.8", "--json"),
    )
    assert result.code == 0, result.errors
    assert (result.json["opset"], result.json["ir_version"]) == (14, 7)
    assert result.json["parity"]["images"] == 359
    assert result.json["run_id"] == json.loads((bundle.folder / MANIFEST).read_text())["run_id"]
    verify_files(tmp_path / "old")
    model = onnx.load(tmp_path / "old/model.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (14, 7)
    checked = run("verify", tmp_path / "old", "--json")
    assert checked.code == 0
    # If the model already has the requested version, the file is the same.
    same = run("export", bundle.folder, "--output", tmp_path / "same", "--runtime-version", "1.14")
    assert same.code == 0, same.errors
    assert contents(tmp_path / "same") == contents(bundle.folder)


def test_a_web_page_is_added_to_the_bundle(
    run: Run, bundle: ModelBundle, node_modules: Path, tmp_path: Path
) -> None:
    command = ("export", bundle.folder, "--web", "--output", tmp_path / "out")
    result = run(*command, cwd=tmp_path)
    assert result.code == 2
    assert "npm install onnxruntime-web@" in result.last_error
    result = run(*command, "--web-runtime", node_modules / "onnxruntime-web", cwd=tmp_path)
    assert result.code == 0, result.errors
    manifest = verify_files(tmp_path / "out")
    added = set(manifest["files"]) - set(contents(bundle.folder))
    assert "web/index.html" in added
    assert {name.split("/")[0] for name in added} == {"web"}
    changed = {
        name for name, sha256 in contents(bundle.folder).items() if contents(tmp_path / "out")[name] != sha256
    }
    assert changed == {MANIFEST, "README.md"}
    assert "`web/index.html`" in (tmp_path / "out/README.md").read_text()


def test_a_new_file_cannot_be_proven_without_the_test_images(
    run: Run, bundle: ModelBundle, tmp_path: Path
) -> None:
    arguments = ("--runtime-version", "1.8", "--output", tmp_path / "out", "--store", tmp_path / "store")
    result = run("export", bundle.folder, *arguments)
    assert result.code == 2
    assert result.last_error.startswith("pixelmill: no held-out images for the parity check of digits")
    assert not (tmp_path / "out").exists()


def test_a_damaged_bundle_and_a_full_disk_leave_nothing(
    run: Run, bundle: ModelBundle, tmp_path: Path, environment: dict[str, str]
) -> None:
    disk = tmp_path / "disk"
    command = [str(PIXELMILL), "export", str(bundle.folder), "--output", str(disk / "out")]
    script = f"{' '.join(command)}; code=$?; ls -A {disk}; exit $code"
    done = on_small_disk(["sh", "-c", script], disk, "100k", environment)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stdout == ""
    copy = tmp_path / "copy"
    assert run("export", bundle.folder, "--output", copy).code == 0
    (copy / "labels.json").write_text("[]")
    result = run("export", copy, "--output", tmp_path / "out")
    assert result.code == 1
    assert "labels.json has 2 bytes; expected" in result.last_error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["digits@9"], ["--labels", "x.json"]])
def test_invalid_requests_are_one_line(
    run: Run, trained_store: Path, tmp_path: Path, arguments: list[str]
) -> None:
    result = run("export", *arguments, "--store", trained_store, "--output", tmp_path / "out")
    assert result.code == 2
    assert "Traceback" not in result.errors
    assert list(tmp_path.iterdir()) == []
