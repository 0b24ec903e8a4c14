"""Files that once violated a guarantee, and a few new ones with every run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.images import FORMATS, FURTHER_FORMATS
from tests.fuzz.changes import Change, ChangedFile, changed_files
from tests.fuzz.properties import check
from tests.fuzz.seeds import seeds

# The expected result of each: the failure code, or `scored`.
PAST_FAILURES: list[tuple[ChangedFile, str]] = [
    # Truncated pixels became grey, because decoders fill in what is missing.
    (ChangedFile("JPEG", "RGB baseline 0", [Change("cut", 1100)], ended=True), "corrupt"),
    (ChangedFile("JPEG", "RGB progressive 2", [Change("cut", 900)], ended=True), "corrupt"),
    (ChangedFile("JPEG", "restarts", [Change("cut", 900)], ended=True), "corrupt"),
    # A segment without a length got one when the file was rewritten.
    (ChangedFile("JPEG", "L progressive 0", [Change("big short", 145, 0)]), "corrupt"),
    # Data after an accidental start marker in the pixels was omitted.
    (ChangedFile("JPEG", "CMYK baseline 0", [Change("ones", 3130, 1)]), "corrupt"),
    # The second attempt to decode returned the half that the first had decoded.
    (ChangedFile("PNG", "RGB", [Change("flip", 400)]), "corrupt"),
    (ChangedFile("PNG", "RGB", [Change("flip", 400)], summed=True), "corrupt"),
    # A palette with more entries than indices.
    (ChangedFile("BMP", "P", [Change("long", 46, 257)]), "corrupt"),
    # libtiff printed messages on the terminal.
    (ChangedFile("TIFF", "1 group4", [Change("long", 20, 0)]), "corrupt"),
    (ChangedFile("TIFF", "CMYK tiff_adobe_deflate", [Change("long", 1500, 0)]), "corrupt"),
    # A tag with a missing or unknown value was replaced by its default.
    (ChangedFile("TIFF", "1 group3", [Change("big long", 3785, 0)]), "corrupt"),
    (ChangedFile("TIFF", "1 group3", [Change("big long", 11805, 0)]), "corrupt"),
]


@pytest.mark.parametrize(("file", "outcome"), PAST_FAILURES, ids=lambda value: str(value)[:60])
def test_past_failures(file: ChangedFile, outcome: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = file.encode()
    assert data != seeds()[file.format][file.seed]
    assert check(data, file.format) == outcome
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file_format", [*FORMATS, *FURTHER_FORMATS])
def test_every_seed_is_scored(file_format: str) -> None:
    for name, data in seeds()[file_format].items():
        assert check(data, file_format) == "scored", name


@pytest.mark.parametrize("file_format", [*FORMATS, *FURTHER_FORMATS])
def test_mutated_files_keep_every_guarantee(file_format: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        check(data.draw(changed_files(file_format)).encode(), file_format)

    run()
