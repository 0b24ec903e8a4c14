"""Suggestions for misspelt words."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean epochs?`, or empty if no known word is similar."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {nearest[0]}?" if nearest else ""
