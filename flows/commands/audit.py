"""`pixelmill audit`."""

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Overrides,
    Store,
    check_store,
    print_json,
    shown,
)
from pixelmill.pipeline.display import printable

if TYPE_CHECKING:
    from pixelmill.pipeline.audit import Audit
    from pixelmill.pipeline.config import Recipe

_SOURCES = {
    **dict.fromkeys((".csv", ".parquet"), "table"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".zst"), "archive"),
}


def audit(
    images: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FOLDER|TABLE",
            help="A recipe, a folder with one subfolder per class, an archive of one, or a table.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where the page and audit.json are written; by default `audits/NAME` of the store.",
        ),
    ] = None,
    overrides: Overrides = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the images of a dataset; exit code 3 on findings that the recipe stops at."""
    from pixelmill.pipeline.audit.audit import describe_audit, look_at, require_unstopped, spec_of
    from pixelmill.pipeline.audit.collection import collect
    from pixelmill.pipeline.datasets.download import download_dataset
    from pixelmill.pipeline.datasets.exclusions import read_exclusions
    from pixelmill.pipeline.storage import workspace

    recipe = _load(images, tuple(overrides or ()))
    check_store(store)
    work = workspace(store)
    raw = download_dataset(recipe.dataset, work, read_exclusions(store), for_training=False)
    given = collect(raw, recipe, work)
    folder = output or work / "audits" / recipe.name
    made = look_at(given, spec_of(recipe.dataset), folder)
    if as_json:
        print_json(describe_audit(made, given))
    else:
        _print(made, folder)
    require_unstopped(made, folder)


def _load(images: str, overrides: tuple[str, ...]) -> "Recipe":
    """The recipe, or that of a folder, table or archive with the images of the recipe `folder`."""
    from pixelmill.pipeline.config.sources import name_after_folder
    from pixelmill.pipeline.recipes import load_recipe, shipped_recipes

    suffix = PurePath(images).suffix.lower()
    if images in shipped_recipes() or suffix in (".yaml", ".yml"):
        return load_recipe(images, overrides)
    source = _SOURCES.get(suffix, "folder")
    defaults = (
        f"name={name_after_folder(images)}",
        f"dataset.source={source}",
        f"dataset.path={images}",
    )
    return load_recipe("folder", (*defaults, *overrides))


def _print(made: "Audit", folder: Path) -> None:
    from pixelmill.pipeline.audit import PAGE_FILE
    from pixelmill.pipeline.audit.audit import count_and_name
    from pixelmill.pipeline.audit.kinds import KINDS

    print(f"{made.images:,} images\n")
    for kind, found in made.findings.items():
        print(printable(f"{KINDS[kind].title:<24} {count_and_name(found) if found else 'none'}"))
    print(f"\npage {shown(folder)}/{PAGE_FILE}")
