"""Names of files and classes: clutter, equal class names, and safe display."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.clutter import CLUTTER_NAMES, is_clutter
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.labels import normalize_label, same_label


@pytest.mark.parametrize(
    "name",
    [*sorted(CLUTTER_NAMES), "thumbs.db", ".Trash-1000", ".Trashes", "._photo.jpg", "@EADIR"],
)
def test_files_left_by_systems_are_clutter(name: str) -> None:
    assert is_clutter(name)


@pytest.mark.parametrize(
    "name", ["cat", "recycle", "Thumbs.db.png", "eaDir", "_MACOSX", "trash", "trash.png", ".hidden"]
)
def test_other_names_are_not_clutter(name: str) -> None:
    assert not is_clutter(name)


def test_a_label_is_the_same_composed_and_decomposed() -> None:
    assert normalize_label("cafe\u0301") == "caf\u00e9"
    assert same_label(unicodedata.normalize("NFD", "Äpfel"), "Äpfel")
    assert not same_label("Cat", "cat")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a/b.png", "a/b.png"),
        ("Größe 猫 👩\u200d🔬.png", "Größe 猫 👩\u200d🔬.png"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("\u2066x\u2069\u200f", "\\u2066x\\u2069\\u200f"),
        ("a\u2028b", "a\\u2028b"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("C:\\images", "C:\\images"),
    ],
)
def test_terminal_escapes_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_displayed_text_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert len((shown + "x").splitlines()) == 1
    assert not any(
        unicodedata.bidirectional(character)[-1:] in "EOI"
        for character in shown
        if unicodedata.category(character) == "Cf"
    )
    assert printable(shown) == shown
    shown.encode()
