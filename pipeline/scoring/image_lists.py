"""Lists of images: the paths in a table, or on standard input, each with the other columns of its row."""

import os
import posixpath
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, cast

from pixelmill.pipeline.datasets.table_batches import PATH, TableBatch, TableForm, read_batches, survey_table
from pixelmill.pipeline.datasets.table_files import is_plain
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.images import FailureCode
from pixelmill.pipeline.predictions.arrays import schema_of_text, schema_to_text
from pixelmill.pipeline.predictions.columns import TRUE_LABEL, is_own_column
from pixelmill.pipeline.recipes.spelling import did_you_mean
from pixelmill.pipeline.scoring.listing import UNKNOWN_SIZE, ListedImage, describe_file, is_wanted
from pixelmill.pipeline.scoring.sources import ImageSource, ListFacts
from pixelmill.pipeline.scoring.true_labels import require_classes
from pixelmill.pipeline.storage import Location, absolute, is_remote, stamp_of

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_PATH_COLUMN = "image_path"
_RENAMED = "_listed"
_ROWS_LOOKED_AT = 1000
_SHOWN = 20


def survey_list(
    place: Location,
    form: TableForm,
    path_column: str | None,
    label_column: str | None,
    globs: Sequence[str] = (),
) -> ListFacts:
    """Read a list once, to find its columns and its SHA-256. No image is looked for.

    Args:
        place: The file.
        form: Its form.
        path_column: The column of the paths; None for `image_path`, else the only one that holds paths.
        label_column: The column of the true labels, if any.
        globs: Patterns for the names of images, instead of the extensions.

    Raises:
        RequestError: It cannot be read, is empty, or has no such column.
    """
    survey = survey_table(place, form)
    names = survey.schema.names
    if survey.rows == 0:
        raise RequestError(
            f"the list {printable(str(place))}, which has no rows",
            "one path or more",
            "Check what wrote the list.",
        )
    paths = _find_path_column(place, form, survey.schema, path_column, globs)
    for option, name in (("path_column", paths), ("label_column", label_column)):
        if name is not None and name not in names:
            raise _no_column(place, option, name, names)
    _require_text(place, survey.schema, paths)
    if label_column is not None and not is_plain(survey.schema.field(label_column).type):
        raise RequestError(
            f"`label_column` {label_column!r}, which holds {survey.schema.field(label_column).type}",
            "a column of text or numbers",
            "Correct the option.",
        )
    others = [name for name in names if name not in (paths, label_column)]
    renamed = _names_in_table(others)
    passed = [survey.schema.field(name).with_name(renamed[name]).remove_metadata() for name in others]
    return ListFacts(
        form,
        survey.sha256,
        survey.rows,
        paths,
        label_column,
        renamed,
        schema_to_text(survey.schema),
        schema_to_text(passed),
    )


def require_class_paths(source: ImageSource, classes: Sequence[str]) -> None:
    """Check that one of the first paths of a list begins with the folder of a class of the model.

    Raises:
        RequestError: None of them does.
    """
    facts = cast(ListFacts, source.listed)
    schema = schema_of_text(facts.table_schema)
    first = next(iter(read_batches(source.place, cast(TableForm, facts.form), schema, facts.path_column)))
    paths = (path.removeprefix("./") for path in first.paths if path)
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    require_classes(folders, printable(str(source.place)), classes)


def _find_path_column(
    place: Location, form: TableForm, schema: "pa.Schema", named: str | None, globs: Sequence[str]
) -> str:
    names: list[str] = schema.names
    if named is not None:
        return named
    if form == "lines":
        return PATH
    if DEFAULT_PATH_COLUMN in names:
        return DEFAULT_PATH_COLUMN
    found = []
    for name in names:
        if _is_text(schema.field(name).type):
            first = next(iter(read_batches(place, form, schema, name)))
            paths = list(islice(filter(None, first.paths), _ROWS_LOOKED_AT))
            wanted = sum(is_wanted(path.rpartition("/")[2], globs) for path in paths)
            found += [name] if paths and 2 * wanted > len(paths) else []
    if len(found) == 1:
        return found[0]
    holds = f"columns with paths: {', '.join(map(printable, found))}" if found else "no column with paths"
    shown = ", ".join(map(printable, names[:_SHOWN])) or "none"
    raise RequestError(
        f"the list {printable(str(place))}, which has {holds} (its columns: {shown})",
        f"a column {DEFAULT_PATH_COLUMN}, or one column with paths of images",
        "Name it with `path_column`; a file with one path a line is named .txt.",
    )


def _no_column(place: Location, option: str, name: str, names: Sequence[str]) -> RequestError:
    return RequestError(
        f"`{option}` {name!r}, which the list {printable(str(place))} does not have",
        f"one of its columns: {', '.join(map(printable, names[:_SHOWN])) or 'none'}",
        did_you_mean(name, list(names)) or "Correct the option.",
    )


def _require_text(place: Location, schema: "pa.Schema", column: str) -> None:
    kind = schema.field(column).type
    if not _is_text(kind):
        raise RequestError(
            f"the column {column!r} of the list {printable(str(place))}, which holds {kind}",
            "a column of text",
            "Name the column of the paths with `path_column`.",
        )


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    types = pa.types
    return any(
        check(kind)
        for check in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    )


def _names_in_table(names: Sequence[str]) -> dict[str, str]:
    """The name of each column in the table of predictions: its own, or with a suffix where ours has it.

    Without regard to case, as in SQL.
    """
    taken = {name.lower() for name in names}
    found = {}
    for name in names:
        new = name
        while is_own_column(new) or (new != name and new.lower() in taken):
            new += _RENAMED
        taken.add(new.lower())
        found[name] = new
    return found


@dataclass
class ListListing:
    """The images of a list; see `Listing`. A path that leads nowhere is listed, and fails when it is read."""

    source: ImageSource
    _columns: "deque[pa.Table]" = field(default_factory=deque)

    @property
    def _facts(self) -> ListFacts:
        return cast(ListFacts, self.source.listed)

    def images(self) -> Iterator[ListedImage]:
        """See `Listing`.

        Raises:
            WorkError: The list has been replaced since the run was planned.
        """
        facts, place = self._facts, self.source.place
        before = stamp_of(place)
        row = 0
        schema = schema_of_text(facts.table_schema)
        for batch in read_batches(place, cast(TableForm, facts.form), schema, facts.path_column):
            if facts.columns or facts.label_column:
                self._columns.append(_passed_columns(batch, facts))
            for at, path in enumerate(batch.paths):
                row += 1
                yield self._describe(path, batch.problems.get(at), row)
        if row != facts.rows or stamp_of(place) != before:
            raise WorkError(
                f"the list {printable(str(place))}, which changed during the run",
                "the list that the run began with",
                "Run again once nothing changes it, with `fresh` or another `output`.",
            )

    def take(self, count: int) -> "pa.Table | None":
        """See `Listing`."""
        import pyarrow as pa

        taken = []
        while count and self._columns:
            first = self._columns.popleft()
            taken.append(first.slice(0, count))
            if len(first) > count:
                self._columns.appendleft(first.slice(count))
            count -= len(taken[-1])
        return pa.concat_tables(taken) if taken else None

    def _describe(self, path: str | None, problem: str | None, row: int) -> ListedImage:
        if problem is None and path is None:
            problem = f"row {row} of the list has no path"
        if problem is not None or path is None:
            return _failed(_as_text(path or ""), problem or "")
        name = _as_text(path)
        if "\0" in path or not _is_encodable(path):
            return _failed(name, "the path has characters that no path can have")
        is_address, root = "://" in path, self.source.root
        if not is_address and posixpath.normpath(path).split("/")[0] == "..":
            return _failed(name, f"the path leads out of {absolute(root)}")
        if is_address or (is_remote(root) and not posixpath.isabs(path)):
            return ListedImage(name, UNKNOWN_SIZE, 0, 0)
        return _describe_local(posixpath.join(str(root), path), name)


def _describe_local(place: str, name: str) -> ListedImage:
    found = describe_file(place, name) or ListedImage(name, 0, 0, 0, "a folder")
    if found.problem is not None and not os.path.lexists(place):  # As in `listing`.
        return ListedImage(name, 0, 0, 0)  # Reading the file will report the error.
    return found


def _failed(name: str, problem: str) -> ListedImage:
    return ListedImage(name, 0, 0, 0, f"{FailureCode.BAD_PATH}: {problem}")


def _as_text(path: str) -> str:
    return escape_path(path) if _is_encodable(path) else re.sub("[\ud800-\udfff]", "\ufffd", path)


def _is_encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _passed_columns(batch: TableBatch, facts: ListFacts) -> "pa.Table":
    """The columns of a batch that the table of predictions has, and the true labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = {new: batch.rows.column(name) for name, new in facts.columns.items()}
    if facts.label_column is not None:
        labels = batch.rows.column(facts.label_column)
        texts = pc.cast(labels, pa.string()) if not pa.types.is_string(labels.type) else labels
        arrays[TRUE_LABEL] = pc.utf8_trim_whitespace(texts)
    return pa.table(arrays)
