"""Text of unknown origin, such as file names, made safe to show to a person."""

import unicodedata

# Control, format (which holds the bidirectional controls), lone surrogate, line and paragraph separator.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners are part of how Persian, Indian languages and emoji are written, and reorder nothing.
_HARMLESS = frozenset("\u200c\u200d")


def printable(text: str) -> str:
    r"""The text with each control or bidirectional character as an escape, such as `\x1b` or `\u202e`.

    A file name may hold line breaks, terminal commands, or characters that reverse the order in which the
    rest is shown; none of them reaches a terminal, a report or a README as it is. What can be printed is
    left alone, so nothing is to be parsed from the result.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if _is_unsafe(character) else character for character in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _HARMLESS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
