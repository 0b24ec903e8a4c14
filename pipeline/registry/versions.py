"""Registered versions: reserving numbers, publishing bundles, finding and reading them."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace

from pixelmill.pipeline.artifacts import read_verified, require_only_listed, verify_files
from pixelmill.pipeline.bundles import LABELS_FILE, ModelBundle, Precision, open_bundle, read_bundle_manifest
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.registry.alias_file import read_aliases
from pixelmill.pipeline.registry.model_version import (
    DamagedVersion,
    ModelVersion,
    pointing_to,
    read_version,
    require_identity,
)
from pixelmill.pipeline.registry.pending import mark_pending
from pixelmill.pipeline.registry.places import (
    model_folder,
    model_names,
    models_folder,
    version_folder,
    version_numbers,
)
from pixelmill.pipeline.registry.reservations import end_reservation, release_number, reserve_number
from pixelmill.pipeline.registry.store_format import write_store_format
from pixelmill.pipeline.registry.transfer import fetch_bundle, publish_bundle
from pixelmill.pipeline.storage import Location, is_remote, parse_location


def reserve_version(store: Location, name: str) -> int:
    """Reserve the next version number of a model for this process."""
    return reserve_number(model_folder(store, name))


def release_version(store: Location, name: str, version: int) -> None:
    """Release a reserved version number if nothing was published under it."""
    release_number(version_folder(store, name, version))


def register_bundle(store: Location, bundle: ModelBundle) -> ModelBundle:
    """Publish a local bundle under its version, and mark it as pending for the gate.

    Returns:
        The registered bundle. A remote store gets a copy, whose address it has.

    Raises:
        RequestError: The version already exists in a remote store, or a newer pixelmill wrote the store.
    """
    target = version_folder(store, bundle.name, bundle.version)
    write_store_format(store)
    mark_pending(store, bundle.name, bundle.version)
    publish_bundle(bundle.folder, target)
    end_reservation(target)
    return _registered(bundle, target)


def list_models(store: Location) -> list[ModelVersion | DamagedVersion]:
    """Every registered version, sorted by name and number, including damaged ones."""
    return [entry for name in model_names(store) for entry in _list_versions(store, name)]


def registered_runs(store: Location) -> set[str]:
    """The names of the runs whose models are registered."""
    return {
        str(entry.manifest["run_id"])
        for entry in list_models(store)
        if isinstance(entry, ModelVersion) and entry.manifest.get("run_id")
    }


def show_model(store: Location, reference: str) -> ModelVersion:
    """One version by `name@alias` or `name@version`, or a bundle by its folder.

    Raises:
        RequestError: There is no such model, or its manifest is malformed.
        WorkError: Its results do not match its manifest.
    """
    folder = _find_folder(store, reference)
    name, version = identity(store, folder)
    aliases = read_aliases(store, name).aliases if name is not None else {}
    return read_version(folder, name, version, aliases)


def find_bundle(store: Location, reference: str, precision: Precision = "fp32") -> ModelBundle:
    """Open a bundle by its folder, `name@alias` or `name@version`.

    A remote bundle is fetched into the local cache first, unless it is already there.

    Raises:
        RequestError: There is no such bundle; the message lists the registered ones.
        WorkError: Its files are damaged.
    """
    folder = _find_folder(store, reference)
    bundle = open_bundle(fetch_bundle(folder), precision)
    require_identity(folder, bundle.name, bundle.version, *identity(store, folder))
    return _registered(bundle, folder)


def newest_classes(store: Location, name: str) -> tuple[str, ...]:
    """The classes of the newest version of a model, in the order of its outputs; empty without a version.

    Raises:
        RequestError: The version's `labels.json` is malformed.
        WorkError: It does not match the version's manifest.
    """
    versions = version_numbers(store, name)
    if not versions:
        return ()
    folder = version_folder(store, name, versions[-1])
    names: tuple[str, ...] = tuple(json.loads(read_verified(folder, LABELS_FILE)))
    return names


def find_version(store: Location, reference: str) -> tuple[str, int]:
    """The name and number of a version that is registered in a store.

    Raises:
        RequestError: There is no such version, or it is a bundle outside the store.
    """
    folder = _find_folder(store, reference)
    name, version = identity(store, folder)
    if name is None or version is None:
        raise RequestError(
            f"{reference}, which is not in {models_folder(store)}",
            "a version registered in this store, such as digits@2, or its folder",
            "Choose the store in which it is registered with `store`; other bundles have no aliases.",
        )
    return name, version


def verify_version(store: Location, name: str, version: int) -> None:
    """Check that a registered version contains exactly the files that its manifest lists.

    Raises:
        RequestError: Its manifest is malformed.
        WorkError: It is damaged, or its folder contains another version.
    """
    folder = version_folder(store, name, version)
    local = fetch_bundle(folder)
    manifest = read_bundle_manifest(local)
    require_identity(folder, manifest["name"], manifest["version"], name, version)
    verify_files(local)
    require_only_listed(local, manifest)


def require_model(store: Location, name: str) -> None:
    """Check that a model has a registered version.

    Raises:
        RequestError: It has none.
    """
    if not version_numbers(store, name):
        raise no_model(store, name)


def no_model(store: Location, reference: str) -> RequestError:
    """The error for an unknown reference; it lists the registered models."""
    models = models_folder(store)
    known = [
        f"{name}@{pointer}"
        for name in model_names(store)
        for versions in [version_numbers(store, name)]
        if versions
        for pointer in (*sorted(_aliases_or_none(store, name)), *versions)
    ]
    if known:
        return RequestError(
            f"no model {reference!r} in {models}",
            f"the folder of a bundle, or one of {', '.join(known)}",
            "List the models with `pixelmill models list`.",
        )
    return RequestError(
        f"no model {reference!r}: {models} contains none",
        "the folder of a bundle, or a name@alias of the registry",
        "Train one with `pixelmill retrain`, or choose another store with `store`.",
    )


def identity(store: Location, folder: Location) -> tuple[str, int] | tuple[None, None]:
    """The name and version as which a folder is registered in a store, or two Nones."""
    resolved = folder.resolve()
    name, number = resolved.parent.name, resolved.name
    for version in version_numbers(store, name):
        if str(version) == number and version_folder(store, name, version).resolve() == resolved:
            return name, version
    return None, None


def _registered(bundle: ModelBundle, folder: Location) -> ModelBundle:
    """A bundle as it is known once it lies in a store; of a remote one, it is a local copy."""
    return replace(bundle, address=str(folder)) if is_remote(folder) else replace(bundle, folder=folder)


def _find_folder(store: Location, reference: str) -> Location:
    """The folder of the bundle given by a path, an address, a `name@alias` or a `name@version`."""
    if "://" in reference or os.path.isdir(reference):  # noqa: PTH112  # Path.is_dir raises for long names.
        return parse_location(reference)
    name, _, wanted = reference.partition("@")
    versions = version_numbers(store, name)
    numbers = {str(version): version for version in versions}
    version = numbers.get(wanted)
    if version is None and versions:
        version = read_aliases(store, name).aliases.get(wanted)
    if version not in versions:
        raise no_model(store, reference)
    return version_folder(store, name, version)


def _aliases_or_none(store: Location, name: str) -> dict[str, int]:
    try:
        return read_aliases(store, name).aliases
    except RequestError:
        return {}


def _list_versions(store: Location, name: str) -> Iterator[ModelVersion | DamagedVersion]:
    aliases: dict[str, int] = {}
    folder = model_folder(store, name)
    try:
        versions = version_numbers(store, name)
    except OSError as error:
        yield DamagedVersion(name, None, folder, (), f"{folder} cannot be read: {error.strerror}")
        return
    try:
        aliases = read_aliases(store, name).aliases if versions else {}
    except (PixelmillError, OSError) as error:
        yield DamagedVersion(name, None, folder, (), str(error))
    for version in versions:
        place = version_folder(store, name, version)
        try:
            yield read_version(place, name, version, aliases)
        except (PixelmillError, OSError) as error:
            yield DamagedVersion(name, version, place, pointing_to(version, aliases), str(error))
