"""The options of a scoring run, which define the parameters, defaults and help of its command and flow."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pixelmill.pipeline.decoding import DEFAULT_MAX_MEMORY, DEFAULT_MAX_SECONDS
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS
from pixelmill.pipeline.inference import Provider
from pixelmill.pipeline.predictions.layout import TableFormat
from pixelmill.pipeline.storage import Location

Executor = Literal["local", "dask"]
LOCATIONS = ("previous", "root", "copy_to")
"""The options that are paths or addresses."""
BYTES = "bytes"
_LEAST_MEMORY = 16 << 20


def _option(description: str, expected: str | None = None, unit: str | None = None, **bounds: Any) -> Any:
    """Describe an option.

    Args:
        description: The help text in the command and in the flow's form.
        expected: The expected value in error messages.
        unit: `BYTES` if the command accepts a size such as `512MB`.
        bounds: Constraints of pydantic's `Field`, such as `ge=1`.
    """
    extra = {"expected": expected, "unit": unit}
    return Field(
        description=description,
        json_schema_extra={name: value for name, value in extra.items() if value is not None},
        **bounds,
    )


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How a folder is scored. Each field has a description."""

    format: Annotated[TableFormat, _option("The format of the table.")] = "parquet"
    top_k: Annotated[
        int, _option("The number of classes per row, the most probable first.", "at least 1", ge=1)
    ] = 1
    embeddings: Annotated[
        bool, _option("Add a column with the embedding of each image, from a model exported with embeddings.")
    ] = False
    workers: Annotated[
        int | None,
        _option("The number of worker processes. Default: one per processor.", "at least 1", ge=1),
    ] = None
    provider: Annotated[Provider, _option("Where onnxruntime runs.")] = "cpu"
    executor: Annotated[
        Executor, _option("Where workers run: in processes on this machine, or on a Dask cluster.")
    ] = "local"
    dask_address: Annotated[str | None, _option("The address of the Dask scheduler: tcp://HOST:PORT.")] = None
    previous: Annotated[
        Location | None,
        _option("An earlier table, whose rows are reused if model, preprocessing and bytes are the same."),
    ] = None
    trust_mtime: Annotated[
        bool,
        _option("Also reuse rows of `previous` if only a file's size, time and inode are the same."),
    ] = False
    globs: Annotated[
        tuple[str, ...],
        _option("A shell pattern for the file names to list, instead of the image extensions."),
    ] = ()
    path_column: Annotated[
        str | None,
        _option("The column of a list with the paths. Default: image_path, else the only one with paths."),
    ] = None
    root: Annotated[
        Location | None,
        _option("What the paths of a list are relative to. Default: the folder of the list."),
    ] = None
    label_column: Annotated[str | None, _option("The column of a list with the true labels.")] = None
    labels_from_folders: Annotated[
        bool, _option("Use the first folder of an image's path as its true label.")
    ] = False
    mark_training_images: Annotated[
        bool,
        _option("Add seen_in_training: whether the model knows the bytes of the file from its training."),
    ] = False
    single_file: Annotated[bool, _option("Write a Parquet table as one file instead of parts.")] = False
    below: Annotated[
        float | None,
        _option(
            "Copy images with a lower probability to `copy_to`.", "a probability from 0 to 1", ge=0, le=1
        ),
    ] = None
    copy_to: Annotated[
        Location | None, _option("The folder for copies of the images below `below`, by predicted class.")
    ] = None
    max_failure_rate: Annotated[
        float,
        _option(
            "The largest share of failed rows; the run is refused above it.",
            "a share from 0 to 1",
            ge=0,
            le=1,
        ),
    ] = 0.01
    max_drift: Annotated[
        float | None,
        _option(
            "The largest drift from the model's test images, beyond chance; the run is refused above it. "
            "Default: drift above 0.05 is reported, and nothing is refused.",
            "a number from 0 to 1",
            ge=0,
            le=1,
        ),
    ] = None
    max_pixels: Annotated[int, _option("Images with more pixels become failed rows.", "at least 1", ge=1)] = (
        DEFAULT_MAX_PIXELS
    )
    max_image_memory: Annotated[
        int,
        _option(
            "Images that need more memory to decode become failed rows.",
            f"at least {_LEAST_MEMORY:,} bytes",
            BYTES,
            ge=_LEAST_MEMORY,
        ),
    ] = DEFAULT_MAX_MEMORY
    max_image_seconds: Annotated[
        float,
        _option(
            "Images that take longer to decode become failed rows.",
            "a number of seconds above 0",
            gt=0,
            allow_inf_nan=False,
        ),
    ] = DEFAULT_MAX_SECONDS
    run_date: Annotated[
        str | None,
        _option("Write to run_date=DATE/ in the output, such as 2026-11-25; `previous` may then be latest."),
    ] = None
    fresh: Annotated[bool, _option("Replace the contents of the output, whichever run they are from.")] = (
        False
    )


@dataclass(frozen=True)
class Option:
    """One field of `ScoringOptions`.

    Attributes:
        name: The name of the field.
        type: The type without its metadata.
        annotation: The type with its metadata, as pydantic reads it.
        default: The default value.
        description: The help text.
        expected: The expected value in error messages; empty if the type says it.
        unit: `BYTES` for a size.
    """

    name: str
    type: Any
    annotation: Any
    default: Any
    description: str
    expected: str
    unit: str

    @property
    def is_location(self) -> bool:
        """Whether its value is a path or an address, which `get_type_hints` shows as a path."""
        return bool(self.type == Path | None)


@cache
def scoring_options() -> tuple[Option, ...]:
    """All options, in the order of the fields."""
    hints, types = get_type_hints(ScoringOptions, include_extras=True), get_type_hints(ScoringOptions)
    found = []
    for field in fields(ScoringOptions):
        annotation = hints[field.name]
        info: FieldInfo = annotation.__metadata__[0]
        extra: Any = info.json_schema_extra or {}
        found.append(
            Option(
                field.name,
                types[field.name],
                annotation,
                field.default,
                info.description or "",
                extra.get("expected", ""),
                extra.get("unit", ""),
            )
        )
    return tuple(found)


def check_names(values: Mapping[str, Any]) -> None:
    """Check that every name is the name of an option.

    Args:
        values: Values by name.

    Raises:
        RequestError: A name is not.
    """
    names = [option.name for option in scoring_options()]
    for name in values:
        if name not in names:
            raise RequestError(f"the option {name!r}", f"one of {', '.join(names)}", "Correct its name.")


def check_values(options: ScoringOptions) -> None:
    """Check options against the types and the ranges of their fields.

    Raises:
        RequestError: A value has the wrong type or is out of range.
    """
    for option in scoring_options():
        if option.is_location:
            continue
        value = getattr(options, option.name)
        try:
            TypeAdapter(option.annotation).validate_python(value, strict=True)
        except ValidationError as error:
            expected = option.expected or error.errors()[0]["msg"].removeprefix("Input should be ")
            raise RequestError(f"`{option.name}` {value}", expected, "Correct the option.") from None
