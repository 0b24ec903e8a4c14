"""A small disk for the processes of a machine, which can be filled up and freed again."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_LARGEST_PIECE = 1 << 26
_SMALLEST_PIECE = 1 << 12


@dataclass(frozen=True)
class SmallDisk:
    """A file system in memory, in a namespace that lives as long as its holder.

    Attributes:
        place: Its folder, as a symbolic link that leads to it inside and outside of the namespace. Outside,
            it must not be resolved.
        holder: The process that keeps the namespace.
    """

    place: Path
    holder: int

    def inside(self, command: list[str]) -> list[str]:
        """The command line that runs a command in the namespace."""
        enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(self.holder)]
        return [*enter, *command]

    def fill(self) -> None:
        """Write a file that takes all the space there is; once more, it takes what others have freed."""
        with (self.place / "filling").open("ab") as file:
            end, size = file.tell(), _LARGEST_PIECE
            while size >= _SMALLEST_PIECE:
                try:
                    os.posix_fallocate(file.fileno(), end, size)
                    end += size
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Remove the file again."""
        (self.place / "filling").unlink()


def is_possible() -> bool:
    """Whether this user may mount a file system in a namespace."""
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk of a size such as `300m` in a folder, during the block."""
    mount = folder / "mounted"
    mount.mkdir()
    script = f"mount -t tmpfs -o size={size} tmpfs {mount} && echo mounted && exec cat"
    # The holder ends with this process, since its standard input does.
    with subprocess.Popen(
        [*_UNSHARE, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        place = folder / "disk"
        place.symlink_to(f"/proc/{holder.pid}/root{mount}")
        yield SmallDisk(place, holder.pid)
        assert holder.stdin is not None
        holder.stdin.close()
