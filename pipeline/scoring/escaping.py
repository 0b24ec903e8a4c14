"""File names as text that can be written anywhere, and back."""

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

_PLAIN = re.compile(r"[ -$&-~]*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def escape(name: str) -> str:
    """A file name as text. A name that is not text, or that could be taken for an escaped one, is
    percent-escaped; `unescape` gives every name back.
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


def unescape(path: str) -> str:
    """The path on disk that an escaped path stands for."""
    if "%" not in path or not _ESCAPE.search(path):
        return path
    return os.fsdecode(unquote_to_bytes(path))
