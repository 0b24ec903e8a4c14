"""How to install what an extra of pixelmill adds, as a command that works where pixelmill came from."""

import json
import shlex
import sys
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CONSTRAINTS = "constraints.txt"


def install_command(*extras: str) -> str:
    """The command that installs extras, such as `flows`, into this environment.

    pixelmill is on no index, so that the command names the checkout or the wheel that pip installed it from,
    which pip records in `direct_url.json` (PEP 610). If that is no longer there, the command is one for a
    checkout as the current folder.
    """
    names = f"[{','.join(extras)}]"
    source, editable = _source()
    if source is None:
        return f"{pip_install('--constraint', _CONSTRAINTS, f'.{names}')} in a checkout of pixelmill"
    constraints = source / _CONSTRAINTS
    pinned = ("--constraint", str(constraints)) if constraints.is_file() else ()
    return pip_install(*pinned, *(["--editable"] if editable else []), f"{source}{names}")


def pip_install(*arguments: str) -> str:
    """The command line of pip in this environment, which need not be the one of `pip`."""
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def _source() -> tuple[Path | None, bool]:
    """The folder or file that pixelmill was installed from, if it is there, and whether it is editable."""
    # A checkout as the current folder has metadata of its own, which a build left there.
    records = (found.read_text("direct_url.json") for found in distributions(name="pixelmill"))
    recorded = json.loads(next(filter(None, records), "{}"))
    address = urlsplit(recorded.get("url", ""))
    path = Path(unquote(address.path))
    if address.scheme != "file" or not path.exists():
        return None, False
    return path, bool(recorded.get("dir_info", {}).get("editable"))
