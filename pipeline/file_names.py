"""File names as printable text for JSON, tables and terminals, and back."""

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

_PLAIN = re.compile(r"[ -$&-~]*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def escape(name: str) -> str:
    """A file name as text; `unescape` reverses it.

    A name is percent-escaped if it is not valid text or looks like an escaped name.
    """
    if _PLAIN.fullmatch(name):
        return name
    data = os.fsencode(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(data, safe=" !#$&'()*+,;=@[]^`{|}")
    if _ESCAPE.search(text) or _CONTROL.search(text):
        text = text.replace("%", "%25")
        return _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", text)
    return text


def escape_path(path: str) -> str:
    """A path as text, with each of its parts escaped."""
    return "/".join(map(escape, path.split("/")))


def unescape(path: str) -> str:
    """The path on disk for an escaped path."""
    if "%" not in path or not _ESCAPE.search(path):
        return path
    return os.fsdecode(unquote_to_bytes(path))
