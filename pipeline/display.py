"""Making untrusted text, such as file names, safe to display."""

import unicodedata

# Control, format (which includes the bidirectional controls), lone surrogate, line and paragraph separator.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners are needed for Persian, Indic scripts and emoji, and do not reorder text.
_HARMLESS = frozenset("\u200c\u200d")


def printable(text: str) -> str:
    r"""Escape control and bidirectional characters, such as `\x1b` or `\u202e`.

    File names may contain line breaks, terminal escape sequences, and characters that reverse the text
    around them. The result is only for display: it cannot be converted back, as backslashes are not escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if _is_unsafe(character) else character for character in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _HARMLESS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
