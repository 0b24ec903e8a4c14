"""Files on this machine that no version and no running job needs, and their removal."""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pixelmill.pipeline.artifacts import MANIFEST, read_manifest, remove_file, remove_folder
from pixelmill.pipeline.datasets.catalogue import CATALOGUES_FOLDER, DOWNLOADS_FOLDER
from pixelmill.pipeline.datasets.prune import unused_segments
from pixelmill.pipeline.datasets.tensor_index import INDEX_SUFFIX
from pixelmill.pipeline.datasets.tensor_lock import removing
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.predictions.layout import WORK_FOLDER
from pixelmill.pipeline.prune import Candidate, PruneRequest
from pixelmill.pipeline.prune.versions import KeptVersions
from pixelmill.pipeline.registry.use import if_unused
from pixelmill.pipeline.runs import places_of_leftovers, run_is_at_work
from pixelmill.pipeline.status import size_below
from pixelmill.pipeline.storage import cache_folder, is_remote, local_path, workspace
from pixelmill.pipeline.storage.temporaries import hold, release, temporaries
from pixelmill.pipeline.training.features import FEATURES_FOLDER

_RUN = re.compile(r"(?P<time>\d{8}T\d{6}Z)-(?P<model>.+)-[0-9a-f]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_LOCK_OF_OUTPUT = "lock"


def find_working_files(request: PruneRequest, kept: KeptVersions) -> list[Candidate]:
    """The runs, datasets, catalogues, tensors, features, checkpoints, copies and temporary files that may go.

    While a retraining is at work in the store, its working files are all kept, because it may need any.
    """
    work = workspace(request.store)
    found = [*_temporary_files(request), *_tables(request), *_copies(request, kept)]
    if any(run_is_at_work(run) for run in _runs_in(work)):
        return found
    datasets = list(_datasets(work, request, kept))
    removed = [path for candidate in datasets for path in candidate.paths]
    return [
        *found,
        *_runs(work, request, kept),
        *datasets,
        *_catalogues(work, request),
        *_tensors(work, request, removed),
        *_features(work, request),
        *_checkpoints(work, request),
    ]


def remove_working_files(request: PruneRequest, candidate: Candidate) -> bool:
    """Remove what a candidate lists, unless it is in use by now; returns whether it was removed."""
    needs_quiet = candidate.kind in ("run", "dataset", "catalogue", "tensors", "features", "checkpoint")
    if needs_quiet and any(run_is_at_work(run) for run in _runs_in(workspace(request.store))):
        return False
    if candidate.kind == "bundle copy":
        with if_unused(local_path(candidate.paths[0])) as unused:
            if not unused:
                return False
            remove_folder(candidate.paths[0])
            return True
    if candidate.kind == "tensors":
        with removing(local_path(candidate.paths[0].parent)) as is_free:
            if is_free:
                for path in candidate.paths:
                    remove_file(path)
            return is_free
    for path in candidate.paths:
        if candidate.kind == "temporary file" and not _is_abandoned(local_path(path)):
            return False
        (remove_folder if path.is_dir() else remove_file)(path)
    return True


def _runs(work: Path, request: PruneRequest, kept: KeptVersions) -> Iterator[Candidate]:
    of_model: dict[str, list[Path]] = {}
    for run in _runs_in(work):
        of_model.setdefault(_RUN.fullmatch(run.name)["model"], []).append(run)  # type: ignore[index]
    for runs in of_model.values():
        for run in runs[: -request.keep]:
            if run.name not in kept.runs and _is_old(_time_of(run), request):
                yield _candidate("run", run, "its version is gone, or it made none")


def _datasets(work: Path, request: PruneRequest, kept: KeptVersions) -> Iterator[Candidate]:
    of_source: dict[str, list[tuple[str, Path, str]]] = {}
    for path in sorted((work / "datasets").glob(f"*/{MANIFEST}")):
        manifest = _manifest_of(path.parent)
        if manifest.get("kind") == "prepared-dataset":
            entry = (str(manifest["created_at"]), path.parent, str(manifest["fingerprint"]))
            of_source.setdefault(str(manifest["name"]), []).append(entry)
    for entries in of_source.values():
        for created_at, folder, fingerprint in sorted(entries)[: -request.keep]:
            if fingerprint not in kept.fingerprints and _is_old(datetime.fromisoformat(created_at), request):
                yield _candidate("dataset", folder, "no kept version was trained on it")


def _catalogues(work: Path, request: PruneRequest) -> Iterator[Candidate]:
    """The lists of a dataset's files: each change of the data adds one, which only its own run reads."""
    catalogues = sorted((work / DOWNLOADS_FOLDER / CATALOGUES_FOLDER).glob("*.parquet"), key=_changed)
    for path in catalogues[: -request.keep]:
        if _is_old(_changed(path), request):
            yield _candidate("catalogue", path, "the run that listed these images has ended")


def _tensors(work: Path, request: PruneRequest, without: Sequence[object]) -> Iterator[Candidate]:
    for folder, numbers in unused_segments(work, without).items():
        paths = [
            path
            for number in numbers
            # The index first: tensors without an index count as unfinished.
            for path in sorted(folder.glob(f"{number:08d}.*"), key=lambda path: path.suffix != INDEX_SUFFIX)
        ]
        if paths and all(_is_old(_changed(path), request) for path in paths):
            size = sum(path.stat().st_size for path in paths)
            name = f"{folder.name}, {len(numbers)} segments"
            yield Candidate("tensors", name, tuple(paths), size, "no prepared dataset needs them")


def _features(work: Path, request: PruneRequest) -> Iterator[Candidate]:
    for folder in sorted((work / FEATURES_FOLDER).glob("*/")):
        if _is_old(_changed(folder), request):
            yield _candidate("features", folder, "no run has used them since")


def _checkpoints(work: Path, request: PruneRequest) -> Iterator[Candidate]:
    for path in sorted((work / "checkpoints").glob("*.npz")):
        if not path.name.startswith(".") and _is_old(_changed(path), request):
            with suppress(Timeout), FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
                yield _candidate("checkpoint", path, "no run has continued it")


def _copies(request: PruneRequest, kept: KeptVersions) -> Iterator[Candidate]:
    if not is_remote(request.store):
        return
    needed = {hashlib.sha256(content).hexdigest() for content in kept.manifests}
    for folder in sorted((cache_folder() / "bundles").glob(f"*/{MANIFEST}")):
        copy = folder.parent
        with if_unused(copy) as unused:
            if unused and copy.name not in needed and _is_old(_changed(copy), request):
                manifest = _manifest_of(copy)
                name = f"{manifest.get('name', '?')}@{manifest.get('version', '?')}"
                yield Candidate("bundle copy", name, (copy,), size_below(copy), "its version is not needed")


def _tables(request: PruneRequest) -> Iterator[Candidate]:
    for output in request.outputs:
        if is_remote(output) or not output.is_dir():
            continue
        for folder in (output, *sorted(path for path in output.iterdir() if path.is_dir())):
            left = folder / WORK_FOLDER
            if left.is_dir() and _is_old(_changed(left), request):
                with suppress(Timeout), FileLock(left / _LOCK_OF_OUTPUT, timeout=0):
                    yield Candidate(
                        "table leftover", str(folder), (left,), size_below(left), "no run has continued it"
                    )


def _temporary_files(request: PruneRequest) -> Iterator[Candidate]:
    for place in (*places_of_leftovers(request.store), Path(tempfile.gettempdir())):
        for path in sorted(temporaries(place)):
            if _is_abandoned(path):
                yield _candidate("temporary file", path, "its process has ended")


def _is_abandoned(path: Path) -> bool:
    try:
        if not path.owner() or (descriptor := hold(path)) is None:
            return False
    except (OSError, KeyError):
        return False
    release(descriptor)
    return True


def _runs_in(work: Path) -> list[Path]:
    """The folders of runs, oldest first."""
    folder = work / "runs"
    return sorted(path for path in folder.glob("*") if _RUN.fullmatch(path.name) and path.is_dir())


def _time_of(run: Path) -> datetime:
    found = _RUN.fullmatch(run.name)
    return datetime.strptime(found["time"] if found else "", _TIME).replace(tzinfo=UTC)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _is_old(moment: datetime, request: PruneRequest) -> bool:
    return datetime.now(UTC) - moment >= request.older_than


def _manifest_of(folder: Path) -> dict[str, Any]:
    try:
        return read_manifest(folder)
    except (PixelmillError, OSError):
        return {}


def _candidate(kind: Any, path: Path, reason: str) -> Candidate:
    size = size_below(path) if path.is_dir() else path.stat().st_size
    return Candidate(kind, path.name, (path,), size, reason)
