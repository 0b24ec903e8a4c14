"""Exports on request: a bundle as it is, one more time in another way, or of a model trained elsewhere."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelmill.pipeline.artifacts import publishing, scratch_folder, verify_files
from pixelmill.pipeline.bundles import ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.held_out import HeldOut, from_dataset, from_folder
from pixelmill.pipeline.export.loading import PixelRange
from pixelmill.pipeline.export.readme import write_readme
from pixelmill.pipeline.export.runtimes import choose_version
from pixelmill.pipeline.export.source import (
    ExportSource,
    export_spec_of,
    find_dataset,
    is_written_for,
    source_of_bundle,
    source_of_keras_file,
    with_changes,
)
from pixelmill.pipeline.export.web import WEB_FOLDER, find_web_runtime, write_web_page
from pixelmill.pipeline.locations import children, is_remote, require_reachable, workspace
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.registry.remote import RemoteStorage


@dataclass(frozen=True)
class ExportRequest:
    """What an export is asked to do.

    Attributes:
        output: Where the bundle goes, on this machine or remote; a new or an empty folder.
        store: The artifacts root, where MODEL is looked for, and the data it was trained with.
        model: `name@alias`, `name@version` or a bundle's folder; with `keras_file` the folder it is in.
        runtime_version: The oldest onnxruntime that has to load the file.
        max_abs_difference: What every difference from a probability of Keras has to stay below; derived from
            the model's rounding error when None.
        tie_margin: How far apart two probabilities may lie to be a tie; derived as well when None.
        images: Held-out images that decide, instead of the test images.
        keras_file: A model trained elsewhere.
        labels: Its class names, a JSON list.
        name: What to call it; its file's name when None.
        resize: How images of another shape are made to fit it.
        pixel_range: What it expects of pixels.
        from_logits: Whether its outputs still have to go through a softmax.
        web: Whether the bundle gets a page that classifies in a browser.
        web_runtime: The folder of the npm package onnxruntime-web; None to look in `node_modules`.
    """

    output: Path
    store: Path
    model: str | None = None
    runtime_version: str | None = None
    max_abs_difference: float | None = None
    tie_margin: float | None = None
    images: Path | None = None
    keras_file: Path | None = None
    labels: Path | None = None
    name: str | None = None
    resize: Literal["stretch", "crop", "pad"] | None = None
    pixel_range: PixelRange | None = None
    from_logits: bool = False
    web: bool = False
    web_runtime: Path | None = None


def export_on_request(request: ExportRequest) -> None:
    """Write the bundle that was asked for, whole or not at all.

    Raises:
        RequestError: Options that do not go together, a model that cannot be loaded or expressed, an
            output that is taken, or no images to prove the export on.
        GateRefused: The ONNX file does not answer as the Keras model does.
    """
    _check(request)
    require_free(request.output)
    choose_version(_change(ExportSpec(), request))
    runtime = find_web_runtime(request.web_runtime) if request.web else None
    with scratch_folder("export") as work:
        bundle = _build(request, work)
        if runtime is not None:
            bundle = _with_page(bundle, runtime, work / "with-page")
        deliver_bundle(bundle, request.output)


def _build(request: ExportRequest, work: Path) -> Path:
    """A finished bundle in a folder of this machine."""
    if request.keras_file is not None:
        source = _source_of_keras_file(request, request.keras_file)
        with _held_out(request, source, None) as held_out:
            return export_proven(source, held_out, work / "bundle").folder
    bundle = find_bundle(request.store, request.model or "")
    export = _change(export_spec_of(bundle), request)
    has_new_limits = request.max_abs_difference is not None or request.tie_margin is not None
    if is_written_for(bundle, export) and not has_new_limits:
        return bundle.folder
    source = source_of_bundle(bundle, export)
    with _held_out(request, source, bundle) as held_out:
        return export_proven(source, held_out, work / "bundle").folder


def _with_page(bundle: Path, runtime: Path, target: Path) -> Path:
    """The bundle with a page for browsers."""
    manifest = read_bundle_manifest(bundle)

    def fill(copy: Path) -> None:
        shutil.rmtree(copy / WEB_FOLDER, ignore_errors=True)
        write_web_page(copy, runtime)
        write_readme(copy, manifest)

    copy_bundle(bundle, target, fill)
    return target


def _source_of_keras_file(request: ExportRequest, file: Path) -> ExportSource:
    beside = Path(request.model) if request.model else Path()
    return source_of_keras_file(
        beside / file,
        beside / (request.labels or ""),
        _change(ExportSpec(), request),
        name=request.name,
        resize=request.resize or "stretch",
        pixel_range=request.pixel_range,
        from_logits=request.from_logits,
    )


def _change(export: ExportSpec, request: ExportRequest) -> ExportSpec:
    """Settings of an export with those that were asked for."""
    return with_changes(
        export,
        runtime_version=request.runtime_version,
        max_abs_difference=request.max_abs_difference,
        tie_margin=request.tie_margin,
    )


@contextmanager
def _held_out(request: ExportRequest, source: ExportSource, bundle: ModelBundle | None) -> Iterator[HeldOut]:
    """The images named, or those of the dataset that the model was trained with."""
    if request.images is not None:
        yield from_folder(request.images, source.class_names, source.image)
        return
    dataset = find_dataset(workspace(request.store), bundle) if bundle else None
    if dataset is None:
        raise RequestError(
            f"no held-out images to prove {source.name} on",
            "a folder of images that the model was not trained with: no file leaves unproven",
            "Name one with `images`; subfolders named after the classes give the accuracy, too.",
        )
    with scratch_folder("held-out") as files:
        yield from_dataset(dataset, source.image, files)


def _check(request: ExportRequest) -> None:
    if request.keras_file is None and request.model is None:
        raise RequestError(
            "no model to export",
            "MODEL, or `keras_file` with `labels`",
            "Name one; see `pixelmill models list`.",
        )
    if request.keras_file is not None and request.labels is None:
        raise RequestError(
            "`keras_file` without `labels`", "a JSON list of class names", "Name it with `labels`."
        )
    if request.max_abs_difference is not None and not 0 < request.max_abs_difference <= 1:
        raise RequestError(
            f"`max_abs_difference` {request.max_abs_difference:g}",
            "a difference of probabilities over 0, up to 1",
            "Correct it, or leave it out: it is then derived from the model's rounding error.",
        )
    if request.tie_margin is not None and not 0 <= request.tie_margin < 1:
        raise RequestError(
            f"`tie_margin` {request.tie_margin:g}",
            "a difference of probabilities from 0, less than 1",
            "Correct it, or leave it out: it is then twice the difference allowed.",
        )
    if request.web_runtime is not None and not request.web:
        raise RequestError("`web_runtime` without `web`", "both", "Add `web`, or leave it out.")
    of_keras_files = {
        "labels": request.labels,
        "name": request.name,
        "resize": request.resize,
        "pixel_range": request.pixel_range,
        "from_logits": request.from_logits or None,
    }
    given = [name for name, value in of_keras_files.items() if value is not None]
    if request.keras_file is None and given:
        raise RequestError(
            f"`{given[0]}` without `keras_file`", "it only for a model trained elsewhere", "Leave it out."
        )


def require_free(output: Path) -> None:
    """See that a bundle may go to a place.

    Raises:
        RequestError: Something is there already, or it cannot be reached.
    """
    require_reachable(output)
    if output.is_file():
        raise RequestError(f"output {output} is a file", "a new folder", "Choose another `output`.")
    if (is_remote(output) or output.is_dir()) and children(output):
        raise RequestError(
            f"output {output}, which is not empty", "a new folder or an empty one", "Choose another `output`."
        )


def deliver_bundle(bundle: Path, output: Path) -> None:
    """Copy a bundle of this machine to its destination; a reader sees all of it or no manifest.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    if is_remote(output):
        verify_files(bundle)
        RemoteStorage().publish(bundle, output)
    else:
        copy_bundle(bundle, output)


def copy_bundle(bundle: Path, target: Path, fill: Callable[[Path], None] | None = None) -> None:
    """Copy a bundle to a folder of this machine.

    Args:
        bundle: The finished one.
        target: Must not be a finished artifact yet.
        fill: Adds files to the copy before its manifest is written.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    manifest = verify_files(bundle)
    facts = {name: value for name, value in manifest.items() if name != "files"}
    with publishing(target, facts) as staging:
        for name in manifest["files"]:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, staging / name)
        if fill is not None:
            fill(staging)
