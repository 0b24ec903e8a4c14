"""Scoring the members of an archive as the files of a folder, without unpacking them."""

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import growing_limits, write_shards
from pixelmill.pipeline.scoring.sources import source_of_table
from pixelmill.pipeline.scoring.worker.source_reader import read_images
from pixelmill.pipeline.scoring.worker.worker import score_shard
from pixelmill.pipeline.storage import parse_location
from tests.conftest import write_images

COUNT = 11


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelmill.pipeline.scoring.shards.FIRST_LIMIT", (4, 8 << 20))


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    write_images(tmp_path / "images/7", COUNT - 3, seed=1)
    write_images(tmp_path / "images/b/c", 3, seed=2)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=1)


def score_archive(request: ScoringRequest, archive: Path, **changes: Any) -> PredictionTable:
    output = request.output.with_name(f"out of {archive.name}")
    return score_folder(replace(request, images=archive, output=output, **changes))


def files_below(folder: Any) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def write_zip(archive: Path, folder: Any, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in files_below(folder):
            file.write(path, path.relative_to(folder))


def write_tar(archive: Path, folder: Any, mode: str) -> None:
    with tarfile.open(archive, f"w:{mode}") as file:  # type: ignore[call-overload]
        file.add(folder, ".")


WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".zip": write_zip,
    ".stored.zip": lambda archive, folder: write_zip(archive, folder, zipfile.ZIP_STORED),
    ".tar": lambda archive, folder: write_tar(archive, folder, ""),
    ".tar.gz": lambda archive, folder: write_tar(archive, folder, "gz"),
    ".tar.xz": lambda archive, folder: write_tar(archive, folder, "xz"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_scored_as_its_folder(request_: ScoringRequest, kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"images{kind}"
    (request_.images / "notes.txt").write_text("no image")
    WRITERS[kind](archive, request_.images)
    of_folder = read_predictions(score_folder(request_).folder)
    scored = score_archive(request_, archive, labels_from_folders=True)
    found = read_predictions(scored.folder).sort_values("image_path", ignore_index=True)
    columns = ["image_path", "image_sha256", "status", "label", "probability", "width"]
    pd.testing.assert_frame_equal(found[columns], of_folder[columns])
    assert found["true_label"].unique().tolist() == ["7", "b"]
    assert scored.manifest["passed_over_kinds"]["extensions"] == {".txt": 1}
    source = source_of_table(scored.manifest["request"])
    wanted = found["image_path"].tolist()[3:6]
    assert dict(read_images(source, wanted)) == {
        path: (request_.images / path).read_bytes() for path in wanted
    }
    report = (scored.folder / "report.html").read_text()
    assert report.count("data:image/png;base64") == COUNT


def test_a_run_goes_on_where_it_was_interrupted(request_: ScoringRequest, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar.gz"
    write_tar(archive, request_.images, "gz")
    expected = read_predictions(score_archive(request_, archive).folder)
    request = replace(request_, images=archive)
    with lock_output(request.output):
        plan = plan_scoring(request)
        numbers = [shard.number for shard in write_shards(plan, growing_limits(), tapers=True)]
        for number in numbers[:0:-1]:
            score_shard(str(request.work), number)
    resumed = score_folder(request)
    columns = ["image_path", "image_sha256", "status", "label", "probability"]
    pd.testing.assert_frame_equal(read_predictions(resumed.folder)[columns], expected[columns])
    assert resumed.manifest["computed"] + resumed.manifest["copied"] < COUNT
    os.utime(archive, ns=(0, 0))
    with pytest.raises(RequestError, match="archive_modified_ns"):
        score_folder(request)
    with lock_output(tmp_path / "new"):
        plan_scoring(replace(request, output=tmp_path / "new"))
        list(write_shards(plan_scoring(replace(request, output=tmp_path / "new")), growing_limits()))
        os.utime(archive, ns=(1, 1))
        with pytest.raises(WorkError, match="modified during the run"):
            score_shard(str(tmp_path / "new/.pixelmill"), 0)


def errors_of(table: PredictionTable) -> dict[str, str]:
    rows = read_predictions(table.folder)
    errors = rows["error"].fillna("")
    return {
        f"{path}{'+' * at}": error
        for at, (path, error) in enumerate(zip(rows["image_path"], errors, strict=True))
        for at in [rows["image_path"][:at].tolist().count(path)]
    }


def test_odd_members_of_a_zip_file_are_failed_rows(request_: ScoringRequest, tmp_path: Path) -> None:
    first, second = (path.read_bytes() for path in files_below(request_.images)[:2])
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.png", first)
        file.writestr("folder.png/", b"")
        file.writestr(link, "good.png")
        for name in ("/absolute.png", "../up.png", ".hidden/x.png", "__MACOSX/x.png"):
            file.writestr(name, first)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("good.png", second)
        file.writestr("bz2.png", first, zipfile.ZIP_BZIP2)
        file.writestr("bomb.png", bytes(64 << 20))
        for name in ("crypt.png", "size.png", "crc.png", "header.png"):
            file.writestr(name, first, zipfile.ZIP_STORED)
        at = {info.filename: info.header_offset for info in file.infolist()}
    content = bytearray(archive.read_bytes())
    central = {name: content.rindex(name.encode()) - 46 for name in ("crypt.png", "size.png")}
    content[central["crypt.png"] + 8] |= 1
    content[central["size.png"] + 24 : central["size.png"] + 28] = (1 << 20).to_bytes(4, "little")
    content[at["crc.png"] + 50] ^= 1
    content[at["header.png"]] ^= 1
    archive.write_bytes(content)
    scored = score_archive(request_, archive, max_image_memory=32 << 20, max_failure_rate=1)
    errors = errors_of(scored)
    assert errors.pop("good.png") == ""
    assert {path: error.partition(":")[0] for path, error in errors.items()} == {
        **dict.fromkeys(("/absolute.png", "../up.png", "good.png+"), "bad_path"),
        "link.png": "not_a_file",
        "bz2.png": "unsupported",
        "crypt.png": "unsupported",
        "bomb.png": "too_large",
        "size.png": "corrupt",
        "crc.png": "corrupt",
        "header.png": "corrupt",
    }
    kinds = scored.manifest["passed_over_kinds"]
    assert (kinds["hidden"], kinds["clutter"]) == (1, {"__MACOSX": 1})


def test_a_member_that_is_larger_than_it_says_is_not_inflated(
    request_: ScoringRequest, tmp_path: Path
) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", bytes(200 << 20))
    content = bytearray(archive.read_bytes())
    place = content.rindex(b"bomb.png") - 46
    content[place + 24 : place + 28] = (1000).to_bytes(4, "little")
    content[place + 16 : place + 20] = zlib.crc32(bytes(1000)).to_bytes(4, "little")
    archive.write_bytes(content)
    errors = errors_of(score_archive(request_, archive, max_failure_rate=1))
    assert errors["bomb.png"].startswith("corrupt: the member of the archive is damaged: its size")


@pytest.mark.parametrize(("lost", "cut"), [(480, {"cut.png": "corrupt"}), (600, {}), (1024, {})])
def test_odd_members_of_a_tar_file_are_failed_rows(
    request_: ScoringRequest, lost: int, cut: dict[str, str], tmp_path: Path
) -> None:
    """The archive ends within the last member, within its header, or before it."""
    first = files_below(request_.images)[0].read_bytes()
    archive = tmp_path / "odd.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("good.png", "good.png", "../up.png", "/absolute.png", "caf\udce9.png", "last.png"):
            member = tarfile.TarInfo(name)
            member.size = len(first)
            file.addfile(member, io.BytesIO(first))
        for name, kind in (
            ("sym.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("p.png", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "good.png"
            file.addfile(member)
        file.addfile(tarfile.TarInfo("empty.png"))
        member = tarfile.TarInfo("cut.png")
        member.size = len(first)
        file.addfile(member, io.BytesIO(first))
        end = file.offset
    content = archive.read_bytes()
    archive.write_bytes(content[: end - lost])
    errors = errors_of(score_archive(request_, archive, max_failure_rate=1))
    assert {path: error.partition(":")[0] for path, error in errors.items()} == {
        **dict.fromkeys(("good.png", "caf%E9.png", "last.png"), ""),
        **dict.fromkeys(("good.png+", "../up.png", "/absolute.png"), "bad_path"),
        **dict.fromkeys(("sym.png", "hard.png", "p.png"), "not_a_file"),
        "empty.png": "empty",
        "/": "unreadable",
        **cut,
    }


def test_archives_that_are_refused(request_: ScoringRequest, tmp_path: Path) -> None:
    write_zip(tmp_path / "few.zip", request_.output)
    write_zip(tmp_path / "whole.zip", request_.images)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:500])
    (tmp_path / "wrong.tar").write_bytes((tmp_path / "whole.zip").read_bytes())
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("few.zip", {}, "no images"),
        ("cut.zip", {}, "cannot be read"),
        ("wrong.tar", {}, "cannot be read"),
        ("none.tar.gz", {}, "does not exist"),
        ("whole.zip", {"root": tmp_path}, "root"),
        ("whole.zip", {"trust_mtime": True, "previous": tmp_path}, "trust_mtime"),
    ]
    for name, options, words in cases:
        with pytest.raises(RequestError, match=words):
            score_archive(request_, tmp_path / name, **options)
    with pytest.raises(RequestError, match="on this machine"):
        score_folder(replace(request_, images=parse_location("memory://x/y.zip")))
