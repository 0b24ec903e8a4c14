"""Fuzz decoders for some minutes: `python -m tests.fuzz --minutes 5 JPEG PNG`; all formats by default.

Each format runs in a separate process with a memory limit, and a time limit for each file. A file that
violates a guarantee, or kills the process, is kept, and its path is printed.
"""

import argparse
import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.fuzz.changes import ChangedFile, changed_files
from tests.fuzz.properties import check
from tests.fuzz.seeds import seeds

_MOST_MEMORY = 4 << 30
_MOST_SECONDS = 10
_AT_ONCE = 1000


def _fuzz(file_format: str, minutes: float, folder: Path) -> None:
    """Check mutated files of a format until the time is over, or one of them violates a guarantee."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    end, outcomes = time.monotonic() + 60 * minutes, Counter[str]()
    kept = folder / f"{file_format}.bin"
    printed = os.fstat(2).st_size

    @settings(max_examples=_AT_ONCE, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(file=changed_files(file_format))
    def run(file: ChangedFile) -> None:
        data = file.encode()
        kept.write_bytes(data)
        # Python does not run signal handlers while a decoder hangs.
        faulthandler.dump_traceback_later(_MOST_SECONDS, exit=True)
        outcomes[str(check(data, file_format))] += 1
        faulthandler.cancel_dump_traceback_later()
        assert os.fstat(2).st_size == printed, "something was printed"

    while time.monotonic() < end:
        run()
    kept.unlink()
    print(f"{file_format}: {outcomes.total()} files, {dict(outcomes.most_common())}")


def main() -> int:
    """Fuzz one format after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(seeds()))
    parser.add_argument("--minutes", type=float, default=1, help="for each format")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        _fuzz(arguments.formats[0], arguments.minutes, arguments.into)
        return 0
    failed = False
    for file_format in arguments.formats or seeds():
        folder = Path(tempfile.mkdtemp(prefix="pixelmill-fuzz-"))
        errors = folder / "errors.txt"
        command = [sys.executable, "-m", "tests.fuzz", file_format, "--into", str(folder)]
        with errors.open("wb") as stream:
            done = subprocess.run([*command, "--minutes", str(arguments.minutes)], stderr=stream, check=False)
        if done.returncode:
            failed = True
            print(errors.read_text(errors="replace")[-6000:])
            print(
                f"{file_format}: exit status {done.returncode}; the file is {folder / f'{file_format}.bin'}"
            )
        else:
            errors.unlink()
            folder.rmdir()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
