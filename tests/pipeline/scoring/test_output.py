"""The output folder: files of the user are never touched."""

from dataclasses import replace
from pathlib import Path

import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import local_path
from tests.conftest import write_images


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    write_images(tmp_path / "images", 3)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=1)


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("refused", [True, False])
def test_hidden_files_of_a_user_are_kept(request_: ScoringRequest, refused: bool) -> None:
    output = request_.output
    (output / ".cache.tmp").mkdir(parents=True)
    (output / ".cache.tmp/deep.tmp").write_text("cached")
    (output / ".thesis.tmp").write_text("a year of work")
    (output / ".manifest.json.0a1b2c3d.tmp").write_text("named as ours once were")
    before = content(local_path(output))
    if refused:
        (output / "mine.txt").write_text("other")
        with pytest.raises(RequestError, match=r"contains 'mine\.txt'"):
            score_folder(request_)
        assert content(local_path(output)) == {**before, "mine.txt": b"other"}
    else:
        score_folder(request_)
        assert content(local_path(output)).items() >= before.items()


def test_an_empty_folder_is_kept_and_a_new_one_is_removed(request_: ScoringRequest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "empty", tmp_path / "new/deep/out"):
        with pytest.raises(RequestError, match="top_k"):
            score_folder(replace(request_, output=output, top_k=99))
    assert not list((tmp_path / "empty").iterdir())
    assert not (tmp_path / "new").exists()


def test_clutter_in_the_output_is_allowed(request_: ScoringRequest) -> None:
    table = score_folder(request_)
    for folder in (table.folder, table.folder / "predictions"):
        (folder / "@eaDir").mkdir()
        (folder / "desktop.ini").write_text("")
        (folder / ".DS_Store").write_text("")
    assert score_folder(request_).manifest["computed"] == 0
    assert score_folder(replace(request_, fresh=True)).manifest["computed"] == 3


def test_foreign_files_in_the_folder_of_the_parts_are_kept(request_: ScoringRequest) -> None:
    table = score_folder(request_)
    for name in ("notes.txt", ".part-00000.parquet.swp"):
        mine = table.folder / "predictions" / name
        mine.write_text("mine")
        for fresh in (False, True):
            with pytest.raises(
                RequestError, match=f"contains 'predictions/{name}', which no scoring run wrote"
            ):
                score_folder(replace(request_, fresh=fresh))
        assert mine.read_text() == "mine"
        mine.unlink()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("scores.csv", "`format` csv `output` .*/scores: "),
        ("a.b.Parquet", "`format` parquet `output` .*/a.b: "),
    ],
)
def test_an_output_named_like_a_file_is_refused(
    request_: ScoringRequest, name: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=advice):
        score_folder(replace(request_, output=tmp_path / name))
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert score_folder(replace(request_, output=tmp_path / name)).manifest["scored"] == 3


def test_a_modified_part_is_scored_again(request_: ScoringRequest) -> None:
    first = score_folder(request_)
    (part,) = (first.folder / "predictions").iterdir()
    whole = part.read_bytes()
    part.write_bytes(whole[:60] + b"\0" + whole[61:])
    again = score_folder(request_)
    assert again.manifest["computed"] == 3
    assert again.manifest["run"] == first.manifest["run"]
    part.unlink()
    assert score_folder(request_).manifest["computed"] == 3
    assert score_folder(request_).manifest["computed"] == 0
