"""Class names: comparing them, as different code points may encode the same text; and several per image."""

import unicodedata

MULTI_LABEL = "multi_label"
"""Marks a model that gives each class a probability of its own: in metadata and `preprocessing.json`."""


def normalize_label(name: str) -> str:
    """A class name in Unicode's composed form (NFC), which is used for comparison.

    macOS returns decomposed folder names ("e" and a combining accent), most other systems composed ones
    ("é"); both are the same class. Case and spaces are significant.
    """
    return unicodedata.normalize("NFC", name)


def same_label(first: str, second: str) -> bool:
    """Whether two names refer to the same class."""
    return normalize_label(first) == normalize_label(second)
