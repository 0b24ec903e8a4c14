"""Checking Prefect's SQLite database before a server is started with it."""

import re
import sqlite3
import time
from importlib.util import find_spec
from pathlib import Path

from pixelmill.pipeline.errors import WorkError

_SECONDS_TO_CHECK = 2.0
_INSTRUCTIONS_BETWEEN_LOOKS = 10_000
_REVISION = re.compile(r"^revision\b.*?=\s*[\"'](\w+)[\"']", re.MULTILINE)


def require_database(url: str) -> None:
    """Check that the installed Prefect can use a database.

    Args:
        url: The database's SQLAlchemy URL. Only SQLite files are checked.

    Raises:
        WorkError: It is damaged, or was written by a newer Prefect.
    """
    path = Path(url.removeprefix("sqlite+aiosqlite:///"))
    if not url.startswith("sqlite+aiosqlite:///") or not path.is_file() or not path.stat().st_size:
        return
    try:
        revision = _read_revision(path)
    except sqlite3.OperationalError:
        return  # It is locked, or too large to check in time, but not damaged.
    except sqlite3.DatabaseError as error:
        raise _refusal(path, f"is damaged ({error})") from error
    known = _known_revisions()
    if revision is not None and known and revision not in known:
        raise _refusal(path, f"was written by a newer Prefect (revision {revision})")


def _read_revision(path: Path) -> str | None:
    """The schema's revision; None if there is none yet."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")
        row = tables.fetchone() and connection.execute("SELECT version_num FROM alembic_version").fetchone()
        deadline = time.monotonic() + _SECONDS_TO_CHECK
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_BETWEEN_LOOKS)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            verdict = "ok"  # The database is too large to check completely.
    finally:
        connection.close()
    if verdict != "ok":
        raise sqlite3.DatabaseError(str(verdict))
    return str(row[0]) if row else None


def _known_revisions() -> set[str]:
    """The revisions that the installed Prefect can migrate; empty if its migrations are not found."""
    package = find_spec("prefect")
    if package is None or package.origin is None:
        return set()
    folder = Path(package.origin).parent / "server/database/_migrations/versions/sqlite"
    return {name for file in folder.glob("*.py") for name in _REVISION.findall(file.read_text("utf-8"))}


def _refusal(path: Path, trouble: str) -> WorkError:
    return WorkError(
        f"Prefect's database {path} {trouble}",
        "a database that the installed Prefect can use",
        "Move the file away, or choose another folder: PREFECT_HOME=/tmp/prefect.",
    )
