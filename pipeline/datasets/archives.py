"""Reading files out of an archive, in memory: nothing of it is written to a disk."""

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from pixelmill.pipeline.errors import WorkError


def read_members(archive: Path, names: Collection[str], largest: int) -> dict[str, bytes]:
    """The content of files in a gzipped tar archive, by name.

    Args:
        archive: The archive.
        names: The members wanted; all others are skipped.
        largest: The most bytes that a member may have.

    Raises:
        WorkError: A member is missing, is larger, is no plain file, or the archive is broken.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name not in names or member.name in found:
                    continue
                safe = tarfile.data_filter(member, str(archive.parent))
                if not safe.isreg() or safe.size > largest:
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
        "a gzipped tar archive of plain files of the known sizes",
        "Remove it from the cache and run again.",
    )
