"""Decoders that crash or hang on marked images, for the worker processes of a test.

A worker is a new Python process, which runs `sitecustomize.py` if it finds one on its path. An image stays
intact with more bytes after its end, so a test marks an image by appending the name of a failure.
"""

from pathlib import Path

# `kill` is a crash, or the system's out-of-memory killer; `once` happens only the first time.
CRASHING_DECODER = """
import os, signal
from pathlib import Path
import pixelmill.pipeline.images

decode, once = pixelmill.pipeline.images.decode, Path(__file__).with_name("died-once")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def crash(data, *arguments):
    if data.endswith(b"kill"):
        die()
    if data.endswith(b"once") and not once.exists():
        once.touch()
        die()
    if data.endswith(b"memory"):
        raise MemoryError
    return decode(data, *arguments)

pixelmill.pipeline.images.decode = crash
"""
HANGING_DECODER = """
import pixelmill.pipeline.images

decode = pixelmill.pipeline.images.decode

def hang(data, *arguments):
    while data.endswith(b"hang"):
        pass
    return decode(data, *arguments)

pixelmill.pipeline.images.decode = hang
"""


def write_site(folder: Path, program: str) -> str:
    """Write a program that every Python process runs at its start, if `PYTHONPATH` is the returned folder."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(program)
    return str(site)


def mark_image(path: Path, failure: bytes) -> str:
    """Make the decoder fail on an image; returns the file's name."""
    path.write_bytes(path.read_bytes() + failure)
    return path.name
