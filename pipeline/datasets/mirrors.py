"""Fetching files that are known by the SHA-256 of their content, from the first mirror that has them."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pixelmill.pipeline.artifacts import replacing, sha256_of
from pixelmill.pipeline.errors import DownloadError, NoSourceError
from pixelmill.pipeline.progress import progress

if TYPE_CHECKING:
    import httpx

_log = getLogger(__name__)
_SECONDS_WITHOUT_AN_ANSWER = 20.0
_RESUMPTIONS = 4
_LARGEST_OVERHEAD = 1 << 16
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


class MirrorFailed(Exception):
    """One mirror could not give what was asked; the next may."""


@dataclass(frozen=True)
class WantedFile:
    """A file by name, with the SHA-256, in hexadecimal, and the size in bytes of what is kept of it."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Mirror:
    """A source of files: `fetch` gives the content of one file after the other, as it is kept.

    It gets the files wanted and a folder for unfinished downloads, and raises `MirrorFailed`.
    """

    title: str
    fetch: Callable[[Sequence[WantedFile], Path], Iterator[tuple[WantedFile, bytes]]]


def fetch_files(
    wanted: Sequence[WantedFile], mirrors: Sequence[Mirror], cache: Path
) -> tuple[dict[str, Path], str]:
    """Give the paths of files in the cache, after fetching what it lacks.

    The cache holds files by the hash of their content; each is verified before it is handed out, and a
    damaged one is fetched again. One process at a time fetches into a cache.

    Args:
        wanted: The files.
        mirrors: Where they may be had, the first to be asked first.
        cache: The folder that keeps them, and unfinished downloads under `partial/`.

    Returns:
        The paths by name, and in words where they came from.

    Raises:
        NoSourceError: The cache lacks some, and there is no mirror to ask.
        DownloadError: No mirror had them, with the reason of each.
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = {file.name: cache / file.sha256 for file in wanted}
    reasons = []
    with FileLock(cache / ".lock"):
        missing = [file for file in wanted if not _is_intact(paths[file.name], file.sha256)]
        if not missing:
            return paths, "the cache"
        for mirror in mirrors:
            try:
                for file, content in mirror.fetch(tuple(missing), cache / "partial"):
                    _verify(content, file)
                    with replacing(paths[file.name]) as temporary:
                        temporary.write_bytes(content)
                    missing.remove(file)
            except MirrorFailed as error:
                reasons.append(f"{mirror.title}: {error}")
                _log.warning("%s failed (%s); trying the next source", mirror.title, error)
            if not missing:
                return paths, mirror.title
    names = ", ".join(file.name for file in missing)
    if not mirrors:
        raise NoSourceError(
            f"no source to ask for {names}",
            "at least one",
            "Name a mirror in dataset.mirrors.",
        )
    raise DownloadError(
        f"no source gave {names} ({'; '.join(reasons)})",
        "one mirror that can be reached and is intact",
        "Check the network, or name a mirror of your own in dataset.mirrors.",
    )


def plain_mirror(base: str) -> Mirror:
    """A web server that has each file under a base address, byte for byte."""

    def fetch(wanted: Sequence[WantedFile], partial: Path) -> Iterator[tuple[WantedFile, bytes]]:
        for file in wanted:
            yield file, download(f"{base.rstrip('/')}/{file.name}", partial, file.size)

    return Mirror(base, fetch)


def https_mirror(base: str) -> Mirror:
    """A web server that has each file gzipped as `NAME.gz` under a base address."""

    def fetch(wanted: Sequence[WantedFile], partial: Path) -> Iterator[tuple[WantedFile, bytes]]:
        for file in wanted:
            limit = file.size + _LARGEST_OVERHEAD
            compressed = download(f"{base.rstrip('/')}/{file.name}.gz", partial, limit)
            try:
                with gzip.open(io.BytesIO(compressed)) as decoded:
                    yield file, decoded.read(limit)
            except (OSError, EOFError, zlib.error) as error:
                raise MirrorFailed(f"{file.name}.gz is no whole gzip file: {error}") from error

    return Mirror(base, fetch)


def download(url: str, partial: Path, limit: int) -> bytes:
    """Download a file of at most `limit` bytes, going on where a broken connection left off.

    What arrived stays in `partial` until the file is whole, so a later run goes on from there too.

    Raises:
        MirrorFailed: The server cannot be reached, refuses, breaks off again and again, or sends too much.
    """
    import httpx

    partial.mkdir(parents=True, exist_ok=True)
    target = partial / hashlib.sha256(url.encode()).hexdigest()
    failure: Exception | None = None
    try:
        with httpx.Client(follow_redirects=True, timeout=_SECONDS_WITHOUT_AN_ANSWER) as client:
            for _ in range(1 + _RESUMPTIONS):
                had = _size(target)
                try:
                    _receive(client, url, target, limit)
                    content = target.read_bytes()
                    target.unlink()
                    return content
                except httpx.RequestError as error:
                    failure = error
                    # A server that gives nothing more is not asked again.
                    if _size(target) <= had:
                        break
                    _log.warning("%s broke off (%s); going on", url, failure)
    # An address or a proxy setting that makes no sense is told in a variety of ways.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
        failure = error
    raise MirrorFailed(f"{type(failure).__name__}: {failure}") from failure


def _receive(client: "httpx.Client", url: str, target: Path, limit: int) -> None:
    have = _size(target)
    # Ranges count bytes as stored, so the server must not compress on the way.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == _RANGE_NOT_SATISFIABLE and have:
            # What was left here is not the start of this file.
            target.unlink()
            _receive(client, url, target, limit)
            return
        response.raise_for_status()
        resumed = response.status_code == _PARTIAL_CONTENT
        have = have if resumed else 0
        rest = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        title = f"download {url.rsplit('/', 1)[-1]}"
        with (
            target.open("ab" if resumed else "wb") as file,
            progress(title, rest, "bytes") as advance,
        ):
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > limit:
                    raise MirrorFailed(f"{url} sends more than {limit} bytes")
                file.write(chunk)
                advance(len(chunk), "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_intact(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    if sha256_of(path) == sha256:
        return True
    _log.warning("%s in the cache is damaged; fetching it again", path)
    return False


def _verify(content: bytes, file: WantedFile) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise MirrorFailed(f"{file.name} has SHA-256 {found}, expected {file.sha256}")
