"""Downloading files with a known SHA-256 from the first mirror that has them."""

import gzip
import hashlib
import io
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pixelmill.pipeline.artifacts import replacing, sha256_of
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import DownloadError, NoSourceError
from pixelmill.pipeline.progress import progress

if TYPE_CHECKING:
    import httpx

_log = getLogger(__name__)
_TIMEOUT_SECONDS = 20.0
# Less than the slowest connection in use, and judged over a time in which one recovers from a pause.
_MIN_BYTES_PER_SECOND = 1024
_PACE_SECONDS = 30.0
_MAX_RESUMPTIONS = 4
_MAX_OVERHEAD_BYTES = 1 << 16
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


class MirrorFailed(Exception):
    """A mirror could not provide a file; the next one may."""


@dataclass(frozen=True)
class WantedFile:
    """A file with its name, SHA-256 in hexadecimal, and size in bytes, as stored in the cache."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class DownloadedFiles:
    """The files of a dataset in the cache.

    Attributes:
        files: Paths by file name.
        provenance: A description of where the data came from.
    """

    files: dict[str, Path]
    provenance: str


@dataclass(frozen=True)
class Mirror:
    """A source of files: `fetch` yields the content of each file as it is stored in the cache.

    `fetch` takes the wanted files and a folder for partial downloads, and raises `MirrorFailed`.
    """

    title: str
    fetch: Callable[[Sequence[WantedFile], Path], Iterator[tuple[WantedFile, bytes]]]


def fetch_files(
    wanted: Sequence[WantedFile], mirrors: Sequence[Mirror], cache: Path
) -> tuple[dict[str, Path], str]:
    """Return the paths of files in the cache, after downloading those that are missing.

    Files are stored under the hash of their content. Each is verified, and a damaged one is downloaded
    again. One process at a time downloads to a cache.

    Args:
        wanted: The files.
        mirrors: The mirrors, in the order in which they are tried.
        cache: The folder of the files, with partial downloads under `partial/`.

    Returns:
        The paths by name, and a description of where the files came from.

    Raises:
        NoSourceError: Files are missing, and there is no mirror.
        DownloadError: No mirror provided them; the message has the reason for each.
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
            f"no source for {names}",
            "at least one mirror",
            "Add a mirror to dataset.mirrors.",
        )
    raise DownloadError(
        f"no source provided {names} ({'; '.join(reasons)})",
        "one mirror that is reachable and intact",
        "Check the network, or add another mirror to dataset.mirrors.",
    )


def plain_mirror(base: str) -> Mirror:
    """A web server with the unmodified files below a base URL."""

    def fetch(wanted: Sequence[WantedFile], partial: Path) -> Iterator[tuple[WantedFile, bytes]]:
        for file in wanted:
            yield file, download(f"{base.rstrip('/')}/{file.name}", partial, file.size)

    return Mirror(without_passwords(base), fetch)


def https_mirror(base: str) -> Mirror:
    """A web server with each file gzipped as `NAME.gz` below a base URL."""

    def fetch(wanted: Sequence[WantedFile], partial: Path) -> Iterator[tuple[WantedFile, bytes]]:
        for file in wanted:
            limit = file.size + _MAX_OVERHEAD_BYTES
            compressed = download(f"{base.rstrip('/')}/{file.name}.gz", partial, limit)
            try:
                with gzip.open(io.BytesIO(compressed)) as decoded:
                    yield file, decoded.read(limit)
            except (OSError, EOFError, zlib.error) as error:
                raise MirrorFailed(f"{file.name}.gz is not a complete gzip file: {error}") from error

    return Mirror(without_passwords(base), fetch)


def download(url: str, partial: Path, limit: int) -> bytes:
    """Download a file of at most `limit` bytes to memory, as `download_file` does.

    Raises:
        MirrorFailed: As in `download_file`.
    """
    target = download_file(url, partial, limit)
    content = target.read_bytes()
    target.unlink()
    return content


def download_file(url: str, partial: Path, limit: int) -> Path:
    """Download a file of at most `limit` bytes, resuming after a broken connection.

    Received bytes stay in `partial` until the file is complete, so a later run can also resume.

    Returns:
        The complete file, in `partial`.

    Raises:
        MirrorFailed: The server is unreachable, refuses, keeps breaking the connection, sends too much or
            next to nothing, or a page of HTML.
    """
    import httpx

    partial.mkdir(parents=True, exist_ok=True)
    target = partial / hashlib.sha256(url.encode()).hexdigest()
    failure: Exception | None = None
    try:
        with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_SECONDS) as client:
            for _ in range(1 + _MAX_RESUMPTIONS):
                previous_size = _size(target)
                try:
                    _receive(client, url, target, limit)
                    return target
                except httpx.RequestError as error:
                    failure = error
                    # Retrying is pointless if the last attempt received nothing.
                    if _size(target) <= previous_size:
                        break
                    _log.warning("download of %s was interrupted (%s); resuming", url, failure)
    # An invalid URL or proxy setting raises various exceptions.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
        failure = error
    raise MirrorFailed(f"{type(failure).__name__}: {failure}") from failure


def _receive(client: "httpx.Client", url: str, target: Path, limit: int) -> None:
    have = _size(target)
    # Ranges refer to the stored bytes, so the server must not compress them in transit.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == _RANGE_NOT_SATISFIABLE and have:
            # The partial download is not the beginning of this file.
            target.unlink()
            _receive(client, url, target, limit)
            return
        _require_file(response, url)
        resumed = response.status_code == _PARTIAL_CONTENT
        have = have if resumed else 0
        rest = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        if have + (rest or 0) > limit:
            raise MirrorFailed(f"{url} sends more than {limit} bytes")
        title = f"download {url.rsplit('/', 1)[-1]}"
        pace = _Pace(url)
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
                pace.add(len(chunk))


def _require_file(response: "httpx.Response", url: str) -> None:
    if not response.is_success:
        raise MirrorFailed(f"{url} responds with {response.status_code} {response.reason_phrase}".rstrip())
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise MirrorFailed(f"{url} responds with a page of HTML instead of the file")


class _Pace:
    """Notices a server that keeps the connection open and sends next to nothing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since, self._count = time.monotonic(), 0

    def add(self, count: int) -> None:
        self._count += count
        seconds = time.monotonic() - self._since
        if seconds < _PACE_SECONDS:
            return
        if self._count < _MIN_BYTES_PER_SECOND * seconds:
            raise MirrorFailed(
                f"{self._url} sends {self._count / seconds:.0f} bytes a second, below the minimum of "
                f"{_MIN_BYTES_PER_SECOND}"
            )
        self._since, self._count = time.monotonic(), 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_intact(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    if sha256_of(path) == sha256:
        return True
    _log.warning("%s in the cache is damaged; downloading it again", path)
    return False


def _verify(content: bytes, file: WantedFile) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise MirrorFailed(f"{file.name} has SHA-256 {found}, expected {file.sha256}")
