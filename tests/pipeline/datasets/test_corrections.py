"""Corrections laid over a stream of images: what they change, what stops, what is counted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.datasets.catalogue import ListedImage
from pixelmill.pipeline.datasets.corrections import AppliedCorrections, Corrector, read_corrections
from pixelmill.pipeline.errors import RequestError


def image(number: int, label: str = "cat") -> tuple[ListedImage, str]:
    """An image whose content is told by its number."""
    name = f"{label}/{number}.png"
    return ListedImage(name, name, f"/data/pets/{name}", label), f"{number:064x}"


IMAGES = [image(0), image(1), image(2, "dog"), image(3, "dog"), image(3, "cat")]


def write(folder: Path, *rows: str, header: str = "sha256,path,label,who,when") -> str:
    path = folder / "corrections.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def applied_to(path: str, classes: tuple[str, ...] = ()) -> tuple[dict[str, str], AppliedCorrections]:
    """The class of each remaining image by name, and what was done."""
    corrector = Corrector(read_corrections(path), classes)
    corrected = [corrector.correct(*found) for found in IMAGES]
    corrector.finish()
    return {found.name: found.class_name for found in corrected if found}, corrector.applied


def refusal(path: str, classes: tuple[str, ...] = ()) -> str:
    with pytest.raises(RequestError) as caught:
        applied_to(path, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_corrections_by_hash_and_path_change_labels_and_exclude(tmp_path: Path) -> None:
    labels, applied = applied_to(
        write(
            tmp_path,
            f"{0:064X},,dog,ada,2026-11-28",
            ",cat/1.png,exclude,,",
            ",/data/pets/dog/2.png,cat,,",
            f"{3:064x},,dog,,",
            ",dog/9.png,cat,,",
        )
    )
    assert labels == {"cat/0.png": "dog", "dog/2.png": "cat", "dog/3.png": "dog", "cat/3.png": "dog"}
    assert applied.counts() == {"relabelled": 3, "excluded": 1, "unchanged": 1, "unmatched": 1}
    assert list(applied.warnings()) == [
        "1 corrections are for no image of the dataset: corrections.csv, line 6"
    ]


def test_two_columns_are_enough_and_escaped_names_are_known(tmp_path: Path) -> None:
    odd = ListedImage("cat/caf%E9.png", "", "/pets/cat/caf%E9.png", "cat")
    path = write(tmp_path, "cat/caf%E9.png,dog", header="path,label")
    found = Corrector(read_corrections(path), ("cat", "dog")).correct(odd, "0" * 64)
    assert found is not None
    assert found.class_name == "dog"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            (f"{1:064x},,dog,ada,Monday", f"{1:064x},,exclude,bob,"),
            f"two corrections of {1:064x} contradict each other: 'dog' in corrections.csv, line 2 by ada of "
            "Monday and 'exclude' in corrections.csv, line 3 by bob; expected one label for each image",
        ),
        ((",cat/1.png,dog,,", ",cat/1.png,cat,,"), "two corrections of cat/1.png contradict each other"),
        ((f"{1:064x},,dog,,", ",cat/1.png,cat,,"), "two corrections of cat/1.png contradict each other"),
        (
            (",cat/1.png,dogs,,",),
            "line 2 of the corrections has the label 'dogs'; expected `exclude` or one of",
        ),
        ((",cat/1.png,dogs,,",), "Did you mean dog?"),
        ((",cat/1.png,,,",), "corrections.csv, line 2 of the corrections has no label"),
        ((",,cat,,",), "corrections.csv, line 2 of the corrections has no sha256 or path"),
        (("a,b",), "line 2 of table"),
    ],
    ids=range(8),
)
def test_corrections_that_are_wrong_stop_the_run(rows: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, *rows)
    assert message in refusal(path)
    assert message in refusal(path, ("cat", "dog"))


def test_rows_that_agree_are_no_contradiction(tmp_path: Path) -> None:
    labels, applied = applied_to(
        write(tmp_path, ",cat/1.png,dog,a,", ",cat/1.png,dog,b,", f"{1:064x},,dog,,")
    )
    assert labels["cat/1.png"] == "dog"
    assert applied.counts()["relabelled"] == 1
    assert applied.counts()["unmatched"] == 0


def test_a_file_without_its_columns_is_one_line(tmp_path: Path) -> None:
    assert "does not exist" in refusal(str(tmp_path / "none.csv"))
    assert "has no column 'label'" in refusal(write(tmp_path, header="path,labels"))
    assert "has no column 'path'" in refusal(write(tmp_path, header="file,label"))


@given(wanted=st.dictionaries(st.integers(0, 3), st.sampled_from(["cat", "dog", "exclude"])))
def test_any_corrections_are_what_the_images_get(
    wanted: dict[int, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp(), *(f"{n:064x},,{label},," for n, label in wanted.items()))
    labels, applied = applied_to(path, ("cat", "dog"))
    expected = {found.name: wanted.get(int(sha256, 16), found.class_name) for found, sha256 in IMAGES}
    assert labels == {name: label for name, label in expected.items() if label != "exclude"}
    assert applied.excluded == len(IMAGES) - len(labels)
    assert applied.unmatched == []
