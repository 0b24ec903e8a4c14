"""Handling export requests: a registered bundle, with new settings or not, or a model trained elsewhere."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pixelmill.pipeline.artifacts import files_to_publish, publishing, scratch_folder, verify_files
from pixelmill.pipeline.bundles import ModelBundle, read_bundle_manifest
from pixelmill.pipeline.bundles.model_files import model_files, require_engines
from pixelmill.pipeline.bundles.signing import require_signing_key, sign_bundle
from pixelmill.pipeline.config import ExportFormat, ExportSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export import PixelRange
from pixelmill.pipeline.export.descriptions import write_descriptions
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.formats.addition import add_formats
from pixelmill.pipeline.export.held_out import HeldOut, from_dataset, from_folder
from pixelmill.pipeline.export.keras_loader import ImageSize
from pixelmill.pipeline.export.parity import tolerance_of
from pixelmill.pipeline.export.proof import read_proof, write_proof
from pixelmill.pipeline.export.readme import write_readme
from pixelmill.pipeline.export.runtimes import choose_version
from pixelmill.pipeline.export.source import (
    ExportSource,
    export_spec_of,
    is_written_for,
    source_of_bundle,
    source_of_keras_file,
    with_changes,
)
from pixelmill.pipeline.export.web import WEB_FOLDER, find_web_runtime, write_web_page
from pixelmill.pipeline.processes import sharing_process
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.registry.training_data import find_dataset
from pixelmill.pipeline.storage import Location, children, publish_copy, require_reachable, workspace


@dataclass(frozen=True)
class ExportRequest:
    """The settings of one export.

    Attributes:
        output: The destination, local or remote; a new or empty folder.
        store: The artifacts root, with the registered models and their datasets.
        model: `name@alias`, `name@version` or a bundle's folder; with `keras_file`, the folder it is in.
        runtime_version: The oldest onnxruntime that must be able to load the file.
        max_abs_difference: The bound that every difference from Keras's probabilities must be less than;
            derived from the model's rounding error when None.
        tie_margin: The largest difference of two of Keras's probabilities that counts as a tie; derived
            likewise when None.
        images: A folder of held-out images to use instead of the test images.
        keras_file: A model trained elsewhere.
        labels: A JSON list of that model's class names.
        name: That model's name; derived from the file name when None.
        resize: How images are resized to that model's input.
        pixel_range: The range of pixels that it expects.
        from_logits: Whether to add a softmax, or with `multi_label` a sigmoid, to its outputs.
        multi_label: Whether an image may have several labels, each with a probability.
        image_size: The height and width of images, if that model takes any.
        formats: The formats to deliver; those of the bundle or, for `keras_file`, ONNX when None.
        web: Whether to add a page that classifies images in a browser.
        web_runtime: The folder of the npm package onnxruntime-web; None to search `node_modules`.
        sign: The private key to sign the bundle with, in PEM; None for no signature.
        sign_password: The password of that key, if it is encrypted.
    """

    output: Location
    store: Location
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
    multi_label: bool = False
    image_size: ImageSize | None = None
    formats: tuple[ExportFormat, ...] | None = None
    web: bool = False
    web_runtime: Path | None = None
    sign: Path | None = None
    sign_password: str | None = field(default=None, repr=False)


def export_on_request(request: ExportRequest) -> None:
    """Write the requested bundle, completely or not at all.

    Raises:
        RequestError: The settings are inconsistent, the model cannot be loaded or converted, the output is
            not empty, or there are no held-out images.
        WorkError: A format cannot express the model.
        GateRefused: The ONNX file's predictions differ from the Keras model's, or those of another format.
    """
    _check(request)
    require_free(request.output)
    choose_version(_change(ExportSpec(), request))
    require_engines(request.formats or ())
    runtime = find_web_runtime(request.web_runtime) if request.web else None
    if request.sign is not None:
        require_signing_key(request.sign, request.sign_password)
    with scratch_folder("export") as work:
        with sharing_process():
            bundle = _build(request, work)
        if runtime is not None:
            bundle = _add_web_page(bundle, runtime, work / "with-page")
        if request.sign is not None:
            bundle = _sign(bundle, request.sign, request.sign_password, work)
        deliver_bundle(bundle, request.output)


def _build(request: ExportRequest, work: Path) -> Path:
    """The folder of a finished bundle on this machine."""
    if request.keras_file is not None:
        source = _source_of_keras_file(request, request.keras_file)
        with _held_out(request, source, None) as held_out:
            return export_proven(source, held_out, work / "bundle").folder
    bundle = find_bundle(request.store, request.model or "")
    export = _change(export_spec_of(bundle), request)
    has_new_limits = request.max_abs_difference is not None or request.tie_margin is not None
    if is_written_for(bundle, export) and not has_new_limits:
        return _add_formats(request, bundle, work / "with-formats")
    source = source_of_bundle(bundle, export)
    with _held_out(request, source, bundle) as held_out:
        return export_proven(source, held_out, work / "bundle").folder


def _add_formats(request: ExportRequest, bundle: ModelBundle, target: Path) -> Path:
    """The bundle's folder, or a copy with the requested formats that it lacks."""
    manifest = read_bundle_manifest(bundle.folder)
    present = {kind.format for kind in model_files(manifest["files"]).values()}
    export = export_spec_of(bundle)
    added = with_changes(export, formats=[name for name in request.formats or () if name not in present])
    if added.formats == ExportSpec().formats:
        return bundle.folder
    proof = read_proof(bundle.folder)
    facts = {
        "export": with_changes(
            export, formats=[*present, *(name for name in added.formats if name not in present)]
        ).model_dump(mode="json")
    }

    def fill(copy: Path) -> None:
        source = source_of_bundle(bundle, added)
        with _held_out(request, source, bundle) as held_out:
            formats = add_formats(
                copy, added.formats, held_out, source.image, export, tolerance_of(proof.parity)
            )
        write_proof(copy, manifest, replace(proof, formats=(*proof.formats, *formats)))
        write_descriptions(copy, manifest)

    copy_bundle(bundle.folder, target, fill, facts)
    return target


def _add_web_page(bundle: Path, runtime: Path, target: Path) -> Path:
    """Copy a bundle and add a page for browsers."""
    manifest = read_bundle_manifest(bundle)

    def fill(copy: Path) -> None:
        shutil.rmtree(copy / WEB_FOLDER, ignore_errors=True)
        write_web_page(copy, runtime)
        write_readme(copy, manifest)

    copy_bundle(bundle, target, fill)
    return target


def _sign(bundle: Path, key: Path, password: str | None, work: Path) -> Path:
    """Sign a copy of a bundle, whose folder is named after the model, as the signature will say."""
    manifest = verify_files(bundle)
    signed = work / "signed" / f"{manifest['name']}-{manifest['version']}"
    signed.parent.mkdir()
    publish_copy(bundle, signed, files_to_publish(bundle))
    sign_bundle(signed, key, password)
    return signed


def _source_of_keras_file(request: ExportRequest, file: Path) -> ExportSource:
    folder = Path(request.model) if request.model else Path()
    return source_of_keras_file(
        folder / file,
        folder / (request.labels or ""),
        _change(ExportSpec(), request),
        name=request.name,
        resize=request.resize or "stretch",
        pixel_range=request.pixel_range,
        from_logits=request.from_logits,
        multi_label=request.multi_label,
        image_size=request.image_size,
    )


def _change(export: ExportSpec, request: ExportRequest) -> ExportSpec:
    """Export settings with the request's changes."""
    return with_changes(
        export,
        runtime_version=request.runtime_version,
        max_abs_difference=request.max_abs_difference,
        tie_margin=request.tie_margin,
        formats=request.formats,
    )


@contextmanager
def _held_out(request: ExportRequest, source: ExportSource, bundle: ModelBundle | None) -> Iterator[HeldOut]:
    """The requested images, or the test images of the model's dataset."""
    if request.images is not None:
        yield from_folder(request.images, source.class_names, source.image)
        return
    dataset = find_dataset(workspace(request.store), bundle) if bundle else None
    if dataset is None:
        raise RequestError(
            f"no held-out images for the parity check of {source.name}",
            "a folder of images that were not used in training",
            "Provide one with `images`; subfolders named after the classes add the accuracy.",
        )
    with scratch_folder("held-out") as files:
        yield from_dataset(dataset, source.image, files)


def _check(request: ExportRequest) -> None:
    if request.keras_file is None and request.model is None:
        raise RequestError(
            "no model to export",
            "MODEL, or `keras_file` with `labels`",
            "Choose a model from `pixelmill models list`.",
        )
    if request.keras_file is not None and request.labels is None:
        raise RequestError(
            "`keras_file` without `labels`", "a JSON list of class names", "Add it with `labels`."
        )
    if request.max_abs_difference is not None and not 0 < request.max_abs_difference <= 1:
        raise RequestError(
            f"`max_abs_difference` {request.max_abs_difference:g}",
            "a difference of probabilities above 0, up to 1",
            "Correct it, or omit it to derive it from the model's rounding error.",
        )
    if request.tie_margin is not None and not 0 <= request.tie_margin < 1:
        raise RequestError(
            f"`tie_margin` {request.tie_margin:g}",
            "a difference of probabilities of at least 0, less than 1",
            "Correct it, or omit it to use twice the allowed difference.",
        )
    if request.web_runtime is not None and not request.web:
        raise RequestError("`web_runtime` without `web`", "both", "Add `web`, or omit `web_runtime`.")
    of_keras_files = {
        "labels": request.labels,
        "name": request.name,
        "resize": request.resize,
        "pixel_range": request.pixel_range,
        "from_logits": request.from_logits or None,
        "multi_label": request.multi_label or None,
        "image_size": request.image_size,
    }
    given = [name for name, value in of_keras_files.items() if value is not None]
    if request.keras_file is None and given:
        raise RequestError(
            f"`{given[0]}` without `keras_file`",
            "this option only for a model trained elsewhere",
            f"Omit {given[0]}.",
        )


def require_free(output: Location) -> None:
    """Check that a bundle can be written to a location.

    Raises:
        RequestError: It is a file or a folder that is not empty, or cannot be reached.
    """
    require_reachable(output)
    if output.is_file():
        raise RequestError(f"output {output} is a file", "a new folder", "Choose another `output`.")
    if output.is_dir() and children(output):
        raise RequestError(
            f"output {output}, which is not empty", "a new folder or an empty one", "Choose another `output`."
        )


def deliver_bundle(bundle: Path, output: Location) -> None:
    """Copy a local bundle to its destination; the manifest appears only once all files are there.

    Raises:
        RequestError: A bundle is already there.
        WorkError: The bundle's files are damaged.
    """
    verify_files(bundle)
    if not publish_copy(bundle, output, files_to_publish(bundle)):
        raise RequestError(f"{output} already contains a bundle", "a new folder", "Choose another `output`.")


def copy_bundle(
    bundle: Path,
    target: Path,
    fill: Callable[[Path], None] | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Copy a bundle to a local folder.

    Args:
        bundle: The finished bundle.
        target: The new folder; must not contain a finished artifact.
        fill: Adds files to the copy before its manifest is written.
        changes: Entries of the manifest that differ in the copy.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    manifest = verify_files(bundle)
    facts = {**{name: value for name, value in manifest.items() if name != "files"}, **changes}
    with publishing(target, facts) as staging:
        for name in manifest["files"]:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, staging / name)
        if fill is not None:
            fill(staging)
