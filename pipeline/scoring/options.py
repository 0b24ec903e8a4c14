"""The options of a scoring run, from which the command and the flow take parameters, defaults and help."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
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
BYTES = "bytes"
_LEAST_MEMORY = 16 << 20


def _option(description: str, expected: str | None = None, unit: str | None = None, **bounds: Any) -> Any:
    """Describe an option.

    Args:
        description: The help text of the command and of the flow's form.
        expected: What an error says is expected of the value.
        unit: `BYTES` where the command takes a size such as `512MB`.
        bounds: What pydantic's `Field` takes, such as `ge=1`.
    """
    extra = {"expected": expected, "unit": unit}
    return Field(
        description=description,
        json_schema_extra={name: value for name, value in extra.items() if value is not None},
        **bounds,
    )


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How a folder is scored; each field describes itself."""

    format: Annotated[TableFormat, _option("The format of the table.")] = "parquet"
    top_k: Annotated[
        int, _option("How many classes a row keeps, the most probable first.", "at least 1", ge=1)
    ] = 1
    workers: Annotated[
        int | None,
        _option("Processes that decode and infer. Default: one for each processor.", "at least 1", ge=1),
    ] = None
    provider: Annotated[Provider, _option("Where onnxruntime runs.")] = "cpu"
    executor: Annotated[
        Executor, _option("What runs the workers: processes of this machine, or a Dask cluster.")
    ] = "local"
    dask_address: Annotated[
        str | None, _option("The address of the cluster's scheduler: tcp://HOST:PORT.")
    ] = None
    previous: Annotated[
        Location | None,
        _option("An earlier table: its rows are reused where model, preprocessing and bytes are the same."),
    ] = None
    trust_mtime: Annotated[
        bool,
        _option("Reuse rows of `previous` also where a file's size, time and inode alone are the same."),
    ] = False
    globs: Annotated[
        tuple[str, ...],
        _option("A shell pattern of the file names to list, instead of the images' extensions."),
    ] = ()
    labels_from_folders: Annotated[
        bool, _option("The first folder of an image's path is its true label.")
    ] = False
    max_failure_rate: Annotated[
        float,
        _option(
            "The largest share of failed rows; above it the run is refused.",
            "a share from 0 to 1",
            ge=0,
            le=1,
        ),
    ] = 0.01
    max_pixels: Annotated[int, _option("Images of more pixels are failed rows.", "at least 1", ge=1)] = (
        DEFAULT_MAX_PIXELS
    )
    max_image_memory: Annotated[
        int,
        _option(
            "Images that take more memory to decode are failed rows.",
            f"at least {_LEAST_MEMORY:,} bytes",
            BYTES,
            ge=_LEAST_MEMORY,
        ),
    ] = DEFAULT_MAX_MEMORY
    max_image_seconds: Annotated[
        float,
        _option(
            "Images that take longer to decode are failed rows.",
            "a number of seconds over 0",
            gt=0,
            allow_inf_nan=False,
        ),
    ] = DEFAULT_MAX_SECONDS
    fresh: Annotated[bool, _option("Replace what the output holds, whatever run it is from.")] = False


@dataclass(frozen=True)
class Option:
    """One field of `ScoringOptions`.

    Attributes:
        name: Of the field.
        type: Without what describes it.
        annotation: With it, as pydantic reads it.
        default: Its value where none is given.
        description: The help text.
        expected: What an error says is expected; empty where the type says it.
        unit: `BYTES` for a size.
    """

    name: str
    type: Any
    annotation: Any
    default: Any
    description: str
    expected: str
    unit: str


@cache
def scoring_options() -> tuple[Option, ...]:
    """All options, in their order."""
    hints = get_type_hints(ScoringOptions, include_extras=True)
    found = []
    for field in fields(ScoringOptions):
        annotation = hints[field.name]
        info: FieldInfo = annotation.__metadata__[0]
        extra: Any = info.json_schema_extra or {}
        found.append(
            Option(
                field.name,
                annotation.__origin__,
                annotation,
                field.default,
                info.description or "",
                extra.get("expected", ""),
                extra.get("unit", ""),
            )
        )
    return tuple(found)


def check_names(values: Mapping[str, Any]) -> None:
    """Refuse names that no option has.

    Args:
        values: By name.

    Raises:
        RequestError: There is one.
    """
    names = [option.name for option in scoring_options()]
    for name in values:
        if name not in names:
            raise RequestError(f"the option {name!r}", f"one of {', '.join(names)}", "Correct its name.")


def check_values(options: ScoringOptions) -> None:
    """Check options against the types and the ranges of their fields.

    Raises:
        RequestError: A value is of another type than its field, or out of its range.
    """
    for option in scoring_options():
        # `parse_location` has checked it, and pydantic knows no `UPath`.
        if option.type == Location | None:
            continue
        value = getattr(options, option.name)
        try:
            TypeAdapter(option.annotation).validate_python(value, strict=True)
        except ValidationError as error:
            expected = option.expected or error.errors()[0]["msg"].removeprefix("Input should be ")
            raise RequestError(f"`{option.name}` {value}", expected, "Correct the option.") from None
