"""Reading a registered version's metrics and parity, verified against its manifest."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pixelmill.pipeline.artifacts import read_verified
from pixelmill.pipeline.bundles import METRICS_FILE, PARITY_FILE, read_bundle_manifest
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.storage import Location

_Count = Annotated[int, Field(ge=0)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Interval = Annotated[list[_Number], Field(min_length=2, max_length=2)]


class _LargestClass(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    share: _Number


class _TestResults(BaseModel):
    """The results of any model; accuracy and loss are None if there were no labels."""

    model_config = ConfigDict(strict=True)

    accuracy: Annotated[float, Field(ge=0, le=1)] | None
    loss: _Number | None
    images: _Count

    @model_validator(mode="after")
    def has_both_or_neither(self) -> Self:
        """Refuse an accuracy without a loss, and a loss without an accuracy."""
        if (self.accuracy is None) != (self.loss is None):
            raise ValueError("an accuracy without a loss, or a loss without an accuracy")
        return self


class _BalancedResults(_TestResults):
    """The results of a model that pixelmill evaluated."""

    accuracy_interval: _Interval
    balanced_accuracy: _Number
    balanced_accuracy_interval: _Interval
    largest_class: _LargestClass
    never_predicted: list[str]


class _Metrics(BaseModel):
    model_config = ConfigDict(strict=True)

    test: _BalancedResults | _TestResults

    @field_validator("test", mode="before")
    @classmethod
    def is_complete(cls, test: Any) -> Any:
        """Require all results of an evaluation if any are present."""
        is_evaluated = isinstance(test, dict) and "balanced_accuracy" in test
        return (_BalancedResults if is_evaluated else _TestResults).model_validate(test)


class _Parity(BaseModel):
    model_config = ConfigDict(strict=True)

    images: _Count
    label_flips: _Count
    max_abs_difference: _Number


@dataclass(frozen=True)
class ModelVersion:
    """A registered version.

    Attributes:
        name: The model's name.
        version: The version number.
        folder: The bundle's folder.
        aliases: The aliases that point to the version, sorted.
        manifest: The bundle's manifest.
        metrics: The content of `metrics.json`, verified against the manifest; `test` has `accuracy` and
            `loss` (both None if there were no labels) and the number of `images`.
        parity: The content of `parity.json`, verified likewise.
    """

    name: str
    version: int
    folder: Location
    aliases: tuple[str, ...]
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]


@dataclass(frozen=True)
class DamagedVersion:
    """A version that cannot be read, or a model whose aliases cannot be read.

    Attributes:
        name: The model's name.
        version: The version number; None if the model's aliases or folder cannot be read.
        folder: The folder of the version or model.
        aliases: The aliases that point to the version, sorted.
        error: What is wrong, in one line.
    """

    name: str
    version: int | None
    folder: Location
    aliases: tuple[str, ...]
    error: str


def read_version(
    folder: Location, name: str | None, version: int | None, aliases: dict[str, int]
) -> ModelVersion:
    """Read a bundle that is registered as `name@version`, or is not registered if these are None.

    Raises:
        RequestError: Its manifest is malformed.
        WorkError: It is another version than it is registered as, or its results do not match the manifest.
    """
    manifest = read_bundle_manifest(folder)
    require_identity(folder, manifest["name"], manifest["version"], name, version)
    return ModelVersion(
        name=manifest["name"],
        version=manifest["version"],
        folder=folder,
        aliases=pointing_to(manifest["version"], aliases),
        manifest=manifest,
        metrics=_read_facts(folder, METRICS_FILE, manifest, _Metrics),
        parity=_read_facts(folder, PARITY_FILE, manifest, _Parity),
    )


def pointing_to(version: int, aliases: dict[str, int]) -> tuple[str, ...]:
    """The aliases that point to a version, sorted."""
    return tuple(sorted(alias for alias, to in aliases.items() if to == version))


def require_identity(
    folder: Location, found_name: str, found_version: int, name: str | None, version: int | None
) -> None:
    """Check that a registered bundle has the name and version that it is registered as.

    Raises:
        WorkError: It has another name or version.
    """
    if name is not None and (found_name, found_version) != (name, version):
        raise WorkError(
            f"{folder} contains {found_name}@{found_version}",
            f"{name}@{version}, as registered",
            "Another bundle was put in its place: restore the version from a copy.",
        )


def _read_facts(
    folder: Location, file: str, manifest: dict[str, Any], form: type[BaseModel]
) -> dict[str, Any]:
    """The content of a bundle's JSON file, verified against the manifest and validated."""
    content = read_verified(folder, file, manifest)
    try:
        facts: dict[str, Any] = json.loads(content)
        form.model_validate(facts)
    except (ValueError, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise WorkError(
            f"{folder / file} is malformed: {detail}",
            "a model's results as written by pixelmill",
            "Export the model again, or restore the bundle from a copy.",
        ) from error
    return facts
