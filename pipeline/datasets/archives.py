"""Reading files from an archive in memory, without extracting it to disk."""

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from pixelmill.pipeline.errors import WorkError


def read_members(archive: Path, names: Collection[str], max_bytes: int) -> dict[str, bytes]:
    """The content of files in a gzipped tar archive, by name.

    Args:
        archive: The archive.
        names: The members to read; all others are skipped.
        max_bytes: The maximum size of a member.

    Raises:
        WorkError: A member is missing, too large or not a regular file, or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name not in names or member.name in found:
                    continue
                safe = tarfile.data_filter(member, str(archive.parent))
                if not safe.isreg() or safe.size > max_bytes:
                    raise _refuse(archive, f"{safe.name} of {safe.size} bytes, of type {safe.type!r}")
                content = tar.extractfile(safe)
                found[safe.name] = content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _refuse(archive, f"{type(error).__name__}: {error}") from error
    missing = sorted(set(names) - set(found))
    if missing:
        raise _refuse(archive, f"no {missing[0]}")
    return found


def _refuse(archive: Path, reason: str) -> WorkError:
    return WorkError(
        f"archive {archive} cannot be read ({reason})",
        "a gzipped tar archive of regular files of the known sizes",
        "Remove it from the cache and run again.",
    )
