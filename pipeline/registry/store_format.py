"""The format of a store: `models/store.json`, written with its first version."""

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.artifacts.formats import format_of, require_known_format
from pixelmill.pipeline.registry.places import models_folder
from pixelmill.pipeline.storage import Location, change_file

_FILE = "store.json"
_KIND = "store"


def require_store_format(store: Location) -> None:
    """Check that this version can read and change a store; one without a format number is the oldest.

    Raises:
        RequestError: A newer version wrote it, or the file is malformed.
    """
    path = models_folder(store) / _FILE
    if path.is_file():
        content = read_json(path)
        facts = content if isinstance(content, dict) else {"format": None}
        require_known_format(store, {**facts, "kind": _KIND})


def write_store_format(store: Location) -> None:
    """Write the format of a store that has none yet.

    Raises:
        RequestError: As for `require_store_format`.
    """
    require_store_format(store)
    change_file(models_folder(store) / _FILE, lambda before: _content() if before is None else None)


def _content() -> bytes:
    return f'{{"kind": "{_KIND}", "format": {format_of(_KIND)["format"]}}}\n'.encode()
