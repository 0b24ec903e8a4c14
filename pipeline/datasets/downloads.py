"""Fetching files that are known by the SHA-256 of their content, from the first mirror that has them."""

import gzip
import hashlib
import http.client
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import replacing, sha256_of
from pipeline.errors import DownloadError
from pipeline.progress import progress

if TYPE_CHECKING:
    import httpx

_log = getLogger(__name__)
_SECONDS_WITHOUT_AN_ANSWER = 20.0
_RESUMPTIONS = 4


class MirrorFailed(Exception):
    """One mirror could not give what was asked; the next may."""


@dataclass(frozen=True)
class WantedFile:
    """A file by name, and the SHA-256 of its decoded content in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Mirror:
    """A source of files: `fetch` gives the decoded content of each, or raises `MirrorFailed`."""

    title: str
    fetch: Callable[[Sequence[WantedFile], Path], dict[str, bytes]]


def fetch_files(
    wanted: Sequence[WantedFile], mirrors: Sequence[Mirror], cache: Path
) -> tuple[dict[str, Path], str]:
    """Give the paths of files in the cache, after fetching what it lacks.

    The cache holds files by the hash of their content; each is verified before it is handed out, and a
    damaged one is fetched again.

    Args:
        wanted: The files.
        mirrors: Where they may be had, the first to be asked first.
        cache: The folder that keeps them, and unfinished downloads under `partial/`.

    Returns:
        The paths by name, and in words where they came from.

    Raises:
        DownloadError: No mirror had them, with the reason of each.
    """
    paths = {file.name: cache / file.sha256 for file in wanted}
    missing = [file for file in wanted if not _is_intact(paths[file.name], file.sha256)]
    if not missing:
        return paths, "the cache"
    reasons = []
    for mirror in mirrors:
        try:
            contents = mirror.fetch(missing, cache / "partial")
            for file in missing:
                _verify(contents[file.name], file)
        except MirrorFailed as error:
            reasons.append(f"{mirror.title}: {error}")
            _log.warning("%s failed (%s); trying the next source", mirror.title, error)
            continue
        for file in missing:
            with replacing(paths[file.name]) as temporary:
                temporary.write_bytes(contents[file.name])
        return paths, mirror.title
    raise DownloadError(
        f"no source gave {', '.join(file.name for file in missing)} ({'; '.join(reasons)})",
        "one mirror that can be reached and is intact",
        "Check the network, or name a mirror of your own in dataset.mirrors.",
    )


def https_mirror(base: str) -> Mirror:
    """A web server that has each file gzipped as `NAME.gz` under a base address."""

    def fetch(wanted: Sequence[WantedFile], partial: Path) -> dict[str, bytes]:
        contents = {}
        for file in wanted:
            compressed = download(f"{base.rstrip('/')}/{file.name}.gz", partial)
            try:
                contents[file.name] = gzip.decompress(compressed)
            except (OSError, EOFError, zlib.error) as error:
                raise MirrorFailed(f"{file.name}.gz is no whole gzip file: {error}") from error
            # Checked at once: a wrong first file spares fetching the others.
            _verify(contents[file.name], file)
        return contents

    return Mirror(base, fetch)


def download(url: str, partial: Path) -> bytes:
    """Download a file with live progress, going on where a broken connection left off.

    What arrived stays in `partial` until the file is whole, so a later run goes on from there too.

    Raises:
        MirrorFailed: The server cannot be reached, refuses, or breaks off again and again.
    """
    import httpx

    partial.mkdir(parents=True, exist_ok=True)
    target = partial / hashlib.sha256(url.encode()).hexdigest()
    failure: Exception | None = None
    with httpx.Client(follow_redirects=True, timeout=_SECONDS_WITHOUT_AN_ANSWER) as client:
        for _ in range(1 + _RESUMPTIONS):
            had = target.stat().st_size if target.exists() else 0
            try:
                _receive(client, url, target)
                content = target.read_bytes()
                target.unlink()
                return content
            except (httpx.RequestError, http.client.HTTPException) as error:
                failure = error
                # A server that gives nothing more is not asked again.
                if (target.stat().st_size if target.exists() else 0) <= had:
                    break
                _log.warning("%s broke off (%s); going on", url, failure)
            except httpx.HTTPError as error:
                failure = error
                break
    raise MirrorFailed(f"{type(failure).__name__}: {failure}") from failure


def _receive(client: "httpx.Client", url: str, target: Path) -> None:
    have = target.stat().st_size if target.exists() else 0
    # Ranges count bytes as stored, so the server must not compress on the way.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            target.unlink()
            _receive(client, url, target)
            return
        response.raise_for_status()
        resumed = response.status_code == 206
        rest = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        title = f"download {url.rsplit('/', 1)[-1]}"
        with (
            target.open("ab" if resumed else "wb") as file,
            progress(title, rest, "bytes") as advance,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                advance(len(chunk), "")


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
