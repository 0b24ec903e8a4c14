"""One image replayed and compared with its row, and the first stage that differs."""

import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from upath import UPath

from pixelmill.pipeline.artifacts import describe_file, read_json, sha256_of, write_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.explain.explanation import Explanation, Stage, explain_image
from pixelmill.pipeline.extras import install_command
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.predictions import PARTS_FOLDER, read_predictions, table_files
from pixelmill.pipeline.predictions.columns import Predictions, RunFacts, TableLayout
from pixelmill.pipeline.predictions.csv_format import write_csv
from pixelmill.pipeline.predictions.lookup import find_row, nearest_paths
from pixelmill.pipeline.predictions.parts import writing_part
from pixelmill.pipeline.predictions.table import open_table
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import local_path
from tests.conftest import update_manifest, write_images
from tests.pipeline.predictions.tables import write_manifest

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("explanation")

STAGES = ["model", "listing", "bytes", "format", "orientation", "tensor", "onnx"]
Explain = Callable[..., Explanation]


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    """Some images in two folders, not yet scored."""
    return _request(bundle, tmp_path)


def _request(bundle: ModelBundle, folder: Path) -> ScoringRequest:
    write_images(folder / "images/a", 20, seed=1)
    write_images(folder / "images/b", 20, seed=2)
    return ScoringRequest(bundle, folder / "images", folder / "out", workers=1)


@pytest.fixture(scope="module")
def pristine(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and the table of `request_`, scored once."""
    folder = tmp_path_factory.mktemp("pristine")
    score_folder(_request(bundle, folder))
    return folder


@pytest.fixture
def scored(request_: ScoringRequest, pristine: Path) -> None:
    """The table of the images of `request_`: a copy, as if it had been written there."""
    shutil.copytree(pristine / "out", local_path(request_.output))
    manifest = local_path(request_.output) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(pristine), str(request_.output.parent)))


@pytest.fixture
def explain(request_: ScoringRequest, trained_store: Path) -> Explain:
    """Explain an image of the table, without Keras."""

    def call(image: str, **options: Any) -> Explanation:
        return explain_image(request_.output, image, trained_store, **{"keras": False, **options})

    return call


def verdicts(explanation: Explanation) -> dict[str, str]:
    return {stage.name: stage.verdict for stage in explanation.stages}


def first(explanation: Explanation) -> Stage:
    assert explanation.first_difference is not None
    return explanation.first_difference


def tamper(folder: Path, path: str, **values: object) -> None:
    """Change cells of one row of a part."""
    (part,) = table_files(folder)
    table = pq.read_table(part)
    rows = table.to_pylist()
    (row,) = [row for row in rows if row["image_path"] == path]
    row.update(values)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)
    update_manifest(folder)


@pytest.mark.usefixtures("scored")
def test_an_unchanged_image_is_the_same_at_every_stage_and_for_keras(
    request_: ScoringRequest, explain: Explain
) -> None:
    explanation = explain("a/00007.png", keras=True)
    assert list(verdicts(explanation)) == [*STAGES, "keras"]
    described = ("model", "bytes", "orientation", "onnx", "keras")
    assert verdicts(explanation) == {
        name: "same" if name in described else "not recorded" for name in [*STAGES, "keras"]
    }
    assert explanation.first_difference is None
    found = {stage.name: stage.found for stage in explanation.stages}
    path = request_.images / "a/00007.png"
    pixels = decode(path.read_bytes(), request_.bundle.image_spec()).pixels
    assert found["listing"] == {"path": "a/00007.png", "size": path.stat().st_size, "regular_file": True}
    assert found["bytes"]["image_sha256"] == sha256_of(path)
    assert found["format"] == {"format": "PNG", "mode": "L", "width": 8, "height": 8, "orientation": 1}
    assert found["tensor"]["shape"] == [8, 8, 1]
    assert found["tensor"]["tensor_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert (found["tensor"]["min"], found["tensor"]["max"]) == (pixels.min(), pixels.max())
    assert found["tensor"]["pillow_alone"] == "the same"
    assert len(found["onnx"]["top_labels"]) == 3
    assert found["keras"]["class_index"] == found["onnx"]["class_index"]
    assert 0 <= found["keras"]["difference"] < found["keras"]["tolerance"] == 1e-5
    assert explanation.tensor is not None
    assert (explanation.tensor == pixels).all()


@pytest.mark.usefixtures("scored")
def test_changed_bytes_are_reported_before_their_consequences(
    request_: ScoringRequest, explain: Explain
) -> None:
    shutil.copyfile(local_path(request_.images) / "a/00001.png", local_path(request_.images) / "a/00007.png")
    explanation = explain("a/00007.png")
    assert first(explanation).name == "bytes"
    assert first(explanation).differing == ("image_sha256",)
    assert first(explanation).found["image_sha256"] == sha256_of(request_.images / "a/00001.png")
    assert verdicts(explanation)["onnx"] == "differs"
    # Its neighbours are unchanged.
    assert explain("a/00006.png").first_difference is None


@pytest.mark.usefixtures("scored")
def test_equal_pixels_with_other_metadata_differ_only_in_their_bytes(
    request_: ScoringRequest, explain: Explain
) -> None:
    path = local_path(request_.images) / "a/00007.png"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "taken again")
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.save(path, pnginfo=notes)
    found = verdicts(explain("a/00007.png"))
    assert [name for name, verdict in found.items() if verdict == "differs"] == ["bytes"]


@pytest.mark.parametrize(
    ("values", "stage", "differing"),
    [
        ({"probability": 0.25}, "onnx", ("probability",)),
        ({"label": "other"}, "onnx", ("label",)),
        ({"width": 9}, "orientation", ("width",)),
        ({"model_sha256": "0" * 64, "width": 9}, "model", ("model_sha256",)),
        ({"image_sha256": None, "height": 3}, "orientation", ("height",)),
        ({"status": "failed", "error": "worker_died: every process"}, "tensor", ("failure",)),
        ({"status": "failed", "error": "unreadable: no permission"}, "bytes", ("failure",)),
        ({"status": "failed", "error": "not_a_file: a pipe"}, "listing", ("failure",)),
        ({"status": "failed", "error": "melted: a code of another version"}, "tensor", ("failure",)),
    ],
)
@pytest.mark.usefixtures("scored")
def test_a_tampered_row_is_reported(
    request_: ScoringRequest,
    explain: Explain,
    values: dict[str, object],
    stage: str,
    differing: tuple[str, ...],
) -> None:
    tamper(local_path(request_.output), "b/00000.png", **values)
    explanation = explain("b/00000.png")
    assert (first(explanation).name, first(explanation).differing) == (stage, differing)
    assert list(verdicts(explanation)) == STAGES


@pytest.mark.parametrize(("distance", "verdict"), [(5e-7, "same"), (2e-6, "differs")])
@pytest.mark.usefixtures("scored")
def test_the_tolerance_between_same_and_different_probabilities(
    request_: ScoringRequest, explain: Explain, distance: float, verdict: str
) -> None:
    row = find_row(open_table(request_.output), "a/00003.png")
    assert row is not None
    tamper(local_path(request_.output), "a/00003.png", probability=row["probability"] + distance)
    stage = explain("a/00003.png").stages[-1]
    assert (stage.name, stage.verdict, stage.found["tolerance"]) == ("onnx", verdict, 1e-6)
    assert stage.found["difference"] == pytest.approx(distance, abs=1e-7)


def test_the_other_top_k_predictions_of_a_row_are_compared(
    request_: ScoringRequest, explain: Explain
) -> None:
    score_folder(replace(request_, top_k=5))
    stage = explain("a/00003.png").stages[-1]
    assert (stage.verdict, len(stage.found["top_labels"])) == ("same", 5)
    row = find_row(open_table(request_.output), "a/00003.png")
    assert row is not None
    tamper(local_path(request_.output), "a/00003.png", top_labels=[*row["top_labels"][:4], "other"])
    assert explain("a/00003.png").stages[-1].differing == ("top_labels",)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def remove(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


FAILURES: list[tuple[str, str, Callable[[Path], object]]] = [
    ("corrupt", "tensor", truncate),
    ("empty", "format", lambda path: path.write_bytes(b"")),
    ("not_an_image", "format", lambda path: path.write_text("a text")),
    ("too_many_pixels", "orientation", lambda path: Image.new("L", (50, 50)).save(path)),
    ("unsupported", "tensor", lambda path: Image.new("F", (9, 9)).save(path, "TIFF")),
    ("not_a_file", "listing", remove),
    ("too_large", "bytes", lambda path: os.truncate(path, (1 << 30) + 1)),
]


@pytest.mark.parametrize(("code", "stage", "spoil"), FAILURES, ids=[code for code, *_ in FAILURES])
def test_a_failed_row_fails_again_with_the_same_code(
    request_: ScoringRequest, explain: Explain, code: str, stage: str, spoil: Callable[[Path], object]
) -> None:
    path = local_path(request_.images) / "a/00004.png"
    good = path.read_bytes()
    spoil(path)
    score_folder(replace(request_, max_pixels=2000))
    explanation = explain("a/00004.png")
    last = explanation.stages[-1]
    assert (last.name, last.found["failure"], last.row["failure"]) == (stage, code, code)
    assert last.verdict == "same"
    assert explanation.first_difference is None
    assert explanation.tensor is None
    # Once repaired, the image differs; if the row has a hash, first in its bytes.
    path.unlink()
    path.write_bytes(good)
    repaired = explain("a/00004.png")
    assert list(verdicts(repaired)) == STAGES
    assert verdicts(repaired)[stage] == "differs"
    assert first(repaired).name == ("bytes" if stage not in ("listing", "bytes") else stage)


@pytest.mark.usefixtures("scored")
def test_a_scored_row_that_fails_now_is_a_difference(request_: ScoringRequest, explain: Explain) -> None:
    truncate(local_path(request_.images) / "a/00004.png")
    (request_.images / "a/00005.png").unlink()
    (request_.images / "a/00006.png").unlink()
    (request_.images / "a/00006.png").mkdir()
    cut = explain("a/00004.png")
    assert first(cut).name == "bytes"
    assert (cut.stages[-1].name, cut.stages[-1].verdict) == ("tensor", "differs")
    assert cut.stages[-1].found["failure"] == "corrupt"
    assert cut.stages[-1].row == {"failure": None}
    gone = first(explain("a/00005.png"))
    assert (gone.name, gone.found["failure"]) == ("listing", "unreadable")
    folder = first(explain("a/00006.png"))
    assert (folder.name, folder.found["failure"]) == ("listing", "not_a_file")


def test_a_replay_with_another_failure_is_a_difference(request_: ScoringRequest, explain: Explain) -> None:
    (request_.images / "a/00004.png").write_bytes(b"")
    score_folder(request_)
    tamper(local_path(request_.output), "a/00004.png", error="corrupt: OSError")
    stage = first(explain("a/00004.png"))
    assert (stage.name, stage.found["failure"], stage.row["failure"]) == ("format", "empty", "corrupt")


def test_an_image_that_kills_a_worker_does_not_kill_the_replay(
    request_: ScoringRequest, explain: Explain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os, signal, pixelmill.pipeline.images\n"
        "pixelmill.pipeline.images.decode = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    score_folder(request_)
    tamper(
        local_path(request_.output), "a/00004.png", error="worker_died: decoding crashes the worker process"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    last = explain("a/00004.png").stages[-1]
    assert (last.name, last.found["failure"], last.verdict) == ("tensor", "worker_died", "same")


def test_a_rotated_photo_has_a_stored_and_a_displayed_size(
    request_: ScoringRequest, explain: Explain
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.random.default_rng(3).integers(0, 256, (20, 40, 3), np.uint8)
    Image.fromarray(pixels).save(local_path(request_.images) / "a/turned.jpg", exif=exif)
    score_folder(request_)
    explanation = explain("a/turned.jpg")
    found = {stage.name: stage.found for stage in explanation.stages}
    assert found["format"] == {"format": "JPEG", "mode": "RGB", "width": 40, "height": 20, "orientation": 6}
    assert found["orientation"] == {"width": 20, "height": 40}
    assert found["tensor"]["pillow_alone"] == "the same"
    assert explanation.first_difference is None


@pytest.mark.usefixtures("scored")
def test_another_model_is_the_first_difference(
    request_: ScoringRequest, explain: Explain, trained_store: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(request_.bundle.folder, tmp_path / "bundle"))
    assert explain("a/00007.png", model=str(copy)).first_difference is None
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + b"\x7a\x00")
    manifest = read_json(copy / "manifest.json")
    manifest["files"]["model.onnx"] = describe_file(copy / "model.onnx")
    write_json(copy / "manifest.json", manifest)
    stage = first(explain("a/00007.png", model=str(copy)))
    assert (stage.name, stage.differing) == ("model", ("model_sha256",))
    assert stage.row["model_sha256"] == request_.bundle.onnx_sha256


@pytest.mark.usefixtures("scored")
def test_keras_predicts_only_with_an_undamaged_file(
    request_: ScoringRequest, explain: Explain, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(request_.bundle.folder, tmp_path / "bundle"))
    (copy / "model.keras").write_bytes(b"damaged")
    damaged = explain("a/00007.png", model=str(copy), keras=True)
    assert (first(damaged).name, first(damaged).differing) == ("keras", ("keras_sha256",))
    (copy / "model.keras").unlink()
    without = explain("a/00007.png", model=str(copy), keras=True).stages[-1]
    assert (without.name, without.verdict) == ("keras", "not recorded")
    assert without.found == {"words": "the bundle has no model.keras"}
    (copy / "model.keras").write_bytes(b"no archive")
    manifest = read_json(copy / "manifest.json")
    manifest["files"]["model.keras"]["sha256"] = sha256_of(copy / "model.keras")
    write_json(copy / "manifest.json", manifest)
    refused = explain("a/00007.png", model=str(copy), keras=True).stages[-1]
    assert "cannot be loaded" in refused.found["words"]


@pytest.mark.usefixtures("scored")
def test_a_missing_keras_is_reported(
    request_: ScoringRequest, explain: Explain, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python uses None for a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "keras", None)
    explanation = explain("a/00007.png", keras=True)
    stage = explanation.stages[-1]
    assert (stage.name, stage.verdict) == ("keras", "not recorded")
    assert stage.found == {"words": f"not installed here: {install_command('train')}"}
    assert explanation.first_difference is None


def test_an_image_can_be_given_by_its_row_or_its_file(
    request_: ScoringRequest, explain: Explain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local_path(request_.images) / "a/link.png").symlink_to(local_path(request_.images) / "b/00000.png")
    score_folder(request_)
    (tmp_path / "shortcut").symlink_to(local_path(request_.images))
    monkeypatch.chdir(local_path(request_.images) / "b")
    for image, path in (
        ("a/00007.png", "a/00007.png"),
        ("./a/00007.png", "a/00007.png"),
        (str(request_.images / "a/00007.png"), "a/00007.png"),
        (str(tmp_path / "shortcut/a/00007.png"), "a/00007.png"),
        ("../a/00007.png", "a/00007.png"),
        ("00007.png", "b/00007.png"),
        (str(request_.images / "a/link.png"), "a/link.png"),
    ):
        explanation = explain(image)
        assert explanation.image_path == path
        assert explanation.first_difference is None


@pytest.mark.usefixtures("scored")
def test_an_image_without_a_row_suggests_the_nearest_ones(request_: ScoringRequest, explain: Explain) -> None:
    with pytest.raises(RequestError, match=r"no row .* nearest are a/0000"):
        explain("a/000007.png")
    with pytest.raises(RequestError, match=r"nearest are .*a/00019\.png"):
        explain("somewhere/else/entirely/00019.png")
    with pytest.raises(RequestError, match="image_path"):
        explain(str(request_.images))
    with pytest.raises(RequestError, match="has no row"):
        explain("")


def test_missing_tables_models_and_folders_are_reported(
    request_: ScoringRequest, explain: Explain, trained_store: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=r"has no manifest\.json"):
        explain("a/00007.png")
    with pytest.raises(RequestError, match="contains no prediction table"):
        explain_image(request_.bundle.folder, "a/00007.png", trained_store)
    score_folder(request_)
    with pytest.raises(RequestError, match=r"a table of digits@1.*`store`, or .* `model`"):
        explain_image(request_.output, "a/00007.png", tmp_path / "new")
    with pytest.raises(RequestError, match="'digits@7'"):
        explain("a/00007.png", model="digits@7")
    request_.images.rename(tmp_path / "moved")
    with pytest.raises(RequestError, match="the folder or archive that was scored, does not exist"):
        explain("a/00007.png")


@pytest.mark.usefixtures("scored")
def test_a_damaged_part_is_reported(request_: ScoringRequest, explain: Explain) -> None:
    (part,) = table_files(request_.output)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(WorkError, match=r"part-00000\.parquet has \d+ bytes, not \d+"):
        explain("a/00007.png")


ODD_NAMES = [b"\xff\xfe.png", b"=cmd.png", b"100%41.png", 'ä, "b".png'.encode(), b"line\nend.png", b"'-x.png"]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_unusual_names_are_found_in_both_formats(
    request_: ScoringRequest, explain: Explain, form: Any
) -> None:
    for number, name in enumerate(ODD_NAMES):
        source = local_path(request_.images) / f"a/{number:05d}.png"
        shutil.copyfile(source, os.fsencode(local_path(request_.images)) + b"/" + name)
    (request_.images / "a/00019.png").write_text("-no image")
    table = score_folder(replace(request_, format=form, top_k=3))
    for path in read_predictions(table.folder)["image_path"]:
        explanation = explain(path)
        assert explanation.image_path == path
        assert explanation.first_difference is None
    for name in ODD_NAMES:
        explanation = explain(str(request_.images / os.fsdecode(name)))
        assert explanation.first_difference is None
        assert (request_.images / os.fsdecode(name)).read_bytes()
        assert explanation.stages[2].found["image_sha256"] == sha256_of(request_.images / os.fsdecode(name))


def test_a_csv_row_is_read_as_the_parquet_row_is(request_: ScoringRequest, tmp_path: Path) -> None:
    (request_.images / "a/00003.png").write_text("no image")
    parquet = score_folder(replace(request_, top_k=3)).folder
    csv = score_folder(replace(request_, top_k=3, format="csv", output=tmp_path / "csv")).folder
    for path in ("a/00002.png", "a/00003.png", "b/00019.png"):
        one, other = find_row(open_table(parquet), path), find_row(open_table(csv), path)
        assert one is not None
        assert other is not None
        data = [name for name in one if name not in ("run_id", "scored_at")]
        assert {name: one[name] for name in data} == {name: other.get(name) for name in data}
    assert find_row(open_table(csv), "a/00002") is None
    assert nearest_paths(open_table(csv), "a/00002") == nearest_paths(open_table(parquet), "a/00002")


def write_parts(folder: Path, parts: Sequence[Sequence[Sequence[str]]]) -> None:
    facts = RunFacts("digits", "1", "0" * 64, "run", "now")
    for number, groups in enumerate(parts):
        with writing_part(
            folder / PARTS_FOLDER / f"part-{number:05d}.parquet", TableLayout(), str(number)
        ) as part:
            for paths in groups:
                predictions = Predictions(paths, 1)
                rows = predictions.to_table(["line\r\na,b"], facts, TableLayout())
                part.write(rows, np.zeros((len(paths), 3), np.int64))


def test_each_row_of_many_parts_and_row_groups_is_found(tmp_path: Path) -> None:
    paths = [f"{letter}/{number:03d}.png" for letter in "abé漢" for number in range(30)]
    groups = [paths[start : start + 5] for start in range(0, len(paths), 5)]
    write_parts(tmp_path, [groups[start : start + 3] for start in range(0, len(groups), 3)])
    write_csv(tmp_path / "csv/predictions.csv", table_files(tmp_path), TableLayout())
    for folder in (tmp_path / "csv", tmp_path):
        write_manifest(folder)
    for folder in (tmp_path, tmp_path / "csv"):
        for path in paths:
            row = find_row(open_table(folder), path)
            assert row is not None
            assert (row["image_path"], row["label"]) == (path, "line\r\na,b")
        for path in ("", "a/0", "a/0005.png", "b/zzz", "漢/030.png", "\udcff"):
            assert find_row(open_table(folder), path) is None
        assert nearest_paths(open_table(folder), "漢/0300.png")[0] in paths
        assert "é/007.png" in nearest_paths(open_table(folder), "elsewhere/007.png", 4)


@pytest.mark.usefixtures("scored")
def test_a_remote_table_with_remote_images(
    request_: ScoringRequest, explain: Explain, trained_store: Path
) -> None:
    images, output = UPath("memory://explained/images"), UPath("memory://explained/out")
    for source, target in ((request_.images, images), (request_.output, output)):
        for path in local_path(source).rglob("*"):
            if path.is_file():
                (target / path.relative_to(local_path(source)).as_posix()).write_bytes(path.read_bytes())
    manifest = read_json(request_.output / "manifest.json")
    manifest["request"]["images"] = str(images)
    (output / "manifest.json").write_bytes(b"")
    write_json(output / "manifest.json", manifest)
    for image in ("a/00007.png", "memory://explained/images/a/00007.png"):
        explanation = explain_image(output, image, trained_store, keras=False)
        assert explanation.image_path == "a/00007.png"
        assert explanation.first_difference is None
    (images / "a/00007.png").unlink()
    stage = first(explain_image(output, "a/00007.png", trained_store, keras=False))
    assert (stage.name, stage.found["failure"]) == ("listing", "unreadable")
