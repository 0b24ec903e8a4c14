"""Comparing class names: the same text may be stored as different code points."""

import unicodedata


def normalize_label(name: str) -> str:
    """A class name in Unicode's composed form (NFC), in which names are compared.

    macOS hands out folder names decomposed ("e" and a combining accent), most other systems composed
    ("é"); both are the same class. Letter case and spaces are kept: they tell classes apart.
    """
    return unicodedata.normalize("NFC", name)


def same_label(first: str, second: str) -> bool:
    """Whether two names are those of the same class."""
    return normalize_label(first) == normalize_label(second)
