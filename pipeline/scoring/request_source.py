"""Finding out what the images of a request are, and checking the options that belong to each kind."""

import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.sources import ArchiveForm, ImageSource, is_standard_input
from pixelmill.pipeline.scoring.true_labels import require_classes
from pixelmill.pipeline.storage import Location, is_remote

if TYPE_CHECKING:
    from pixelmill.pipeline.datasets.table_batches import TableForm

STANDARD_INPUT_FILE = "list.txt"
"""The copy of standard input in the work folder."""
_LOOKED_AT = 10_000
_OF_LISTS = ("path_column", "root", "label_column")


def find_source(request: ScoringRequest) -> ImageSource:
    """Find out what the images of a request are; a list is read once, and standard input copied.

    Raises:
        RequestError: There is nothing of the kinds that can be scored, it has no images, or an option does
            not fit it.
    """
    place = request.images
    if is_standard_input(place):
        return _list_source(request, _copy_standard_input(request), "lines")
    if place.is_dir():
        _require_unset(request, _OF_LISTS, "a list of paths")
        return ImageSource.of_folder(place)
    # Imported here, as folders do not need the code that reads tables.
    from pixelmill.pipeline.datasets.table_batches import FORMS
    from pixelmill.pipeline.scoring.image_archives import ARCHIVE_FORMS, form_of

    if archive := form_of(place.name):
        _require_unset(request, _OF_LISTS, "a list of paths")
        return _archive_source(request, place, archive)
    form = FORMS.get(place.suffix.lower())
    if form is None or not place.exists():
        problem = "is not a folder" if place.exists() else "is not a folder, as there is nothing by this name"
        raise RequestError(
            f"{printable(str(place))} {problem}",
            f"a folder of images, a list of paths ({', '.join(FORMS)}, or - for standard input), or an "
            f"archive ({', '.join(ARCHIVE_FORMS)})",
            "Check the path.",
        )
    return _list_source(request, place, form)


def _list_source(request: ScoringRequest, place: Location, form: "TableForm") -> ImageSource:
    from pixelmill.pipeline.scoring.image_lists import require_class_paths, survey_list

    if request.trust_mtime:
        raise RequestError("`trust_mtime` with a list", "a folder of images", "Omit the option.")
    if request.labels_from_folders and request.label_column:
        raise RequestError(
            "`labels_from_folders` with `label_column`", "one source of true labels", "Omit one of them."
        )
    facts = survey_list(place, form, request.path_column, request.label_column, request.globs)
    source = ImageSource("list", place, _root_of(request, place), facts)
    if request.labels_from_folders:
        require_class_paths(source, request.bundle.labels())
    return source


def _archive_source(request: ScoringRequest, place: Location, form: ArchiveForm) -> ImageSource:
    from pixelmill.pipeline.scoring.image_archives import ArchiveListing, survey_archive

    if request.trust_mtime:
        raise RequestError("`trust_mtime` with an archive", "a folder of images", "Omit the option.")
    if is_remote(place) or not place.is_file():
        problem = "is at an address" if is_remote(place) else "does not exist"
        raise RequestError(
            f"the archive {printable(str(place))} {problem}",
            "an archive on this machine",
            "Copy it to this machine, or check the path.",
        )
    facts = survey_archive(place, form, request.max_image_memory)
    source = ImageSource("archive", place.absolute(), place.absolute(), archive=facts)
    images = ArchiveListing(source, request.globs, SkippedFiles()).images()
    first = [image.path for image in islice(images, _LOOKED_AT if request.labels_from_folders else 1)]
    if not first:
        raise RequestError(
            f"the archive {printable(str(place))}, which contains no images",
            f"members that match {' or '.join(request.globs)}"
            if request.globs
            else "members with an image extension, such as .png or .jpg",
            "Check the path.",
        )
    if request.labels_from_folders:
        folders = {path.partition("/")[0] for path in first if "/" in path.strip("/")}
        require_classes(folders, str(place), request.bundle.labels())
    return source


def _root_of(request: ScoringRequest, place: Location) -> Location:
    if request.root is None:
        here = Path.cwd() if is_standard_input(request.images) else place.parent
        return here if is_remote(here) else here.absolute()
    if not is_remote(request.root) and not request.root.is_dir():
        raise RequestError(f"`root` {request.root}, which is not a folder", "a folder", "Check the path.")
    return request.root if is_remote(request.root) else request.root.absolute()


def _copy_standard_input(request: ScoringRequest) -> Location:
    """Copy standard input to the work folder, so that it can be read twice."""
    if sys.stdin is None or sys.stdin.isatty():
        raise RequestError(
            "images -, and nothing on standard input", "paths, one a line", "Pipe them to the command."
        )
    copy = request.work / STANDARD_INPUT_FILE
    with replacing(copy) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return copy


def _require_unset(request: ScoringRequest, names: tuple[str, ...], kind: str) -> None:
    for name in names:
        if getattr(request, name) is not None:
            raise RequestError(f"`{name}` with {request.images}", kind, "Omit the option.")
