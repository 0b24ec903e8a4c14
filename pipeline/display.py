"""Making text safe to display: untrusted text, such as file names, and addresses with passwords."""

import os
import re
import unicodedata

# Control, format (which includes the bidirectional controls), lone surrogate, line and paragraph separator.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners are needed for Persian, Indic scripts and emoji, and do not reorder text.
_HARMLESS = frozenset("\u200c\u200d")

# RFC 3986: the user information ends at the last @ before the path, the query or the fragment.
_CREDENTIALS = re.compile(r"://[^\s/?#\"<>]+@")
_SECRET_VARIABLES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|AUTH_STRING")
# A shorter value, such as `1` or `none`, may be any other word of the text.
_SHORTEST_SECRET = 8


def printable(text: str) -> str:
    r"""Escape control and bidirectional characters, such as `\x1b` or `\u202e`.

    File names may contain line breaks, terminal escape sequences, and characters that reverse the text
    around them. The result is only for display: it cannot be converted back, as backslashes are not escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if _is_unsafe(character) else character for character in text)


def without_passwords(text: str) -> str:
    """Replace passwords and tokens by `***`.

    These are the user information of every address (`https://***@host/`) and the values of environment
    variables that are named like a secret, such as `AWS_SECRET_ACCESS_KEY`.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_VARIABLES.search(name.upper()):
            text = text.replace(value, "***")
    return _CREDENTIALS.sub("://***@", text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _HARMLESS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
