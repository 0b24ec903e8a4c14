"""`pixelmill forget`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.flows.deployment_outputs import deployment_outputs
from pixelmill.flows.server_record import find_server, read_record
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import parse_location, sha256_of

if TYPE_CHECKING:
    from pixelmill.pipeline.forget import SearchResult

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def forget(
    images: Annotated[
        list[str],
        typer.Argument(metavar="SHA256|FILE", help="The SHA-256 of image files, or the files themselves."),
    ],
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--tables",
            metavar="DIR",
            help="A prediction table, or a folder of them, to search too; may be repeated. The outputs of "
            "deployments are searched anyway.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say where the images are; exclude nothing.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the images off the exclusion list.")] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Say where images are held, and exclude them from every later model of the store."""
    contents = {_content_of(image): image for image in images}
    check_store(store)
    from pixelmill.pipeline.datasets.exclusions import exclude_images, readmit_images
    from pixelmill.pipeline.forget.holders import find_holders
    from pixelmill.pipeline.registry.log import user_name

    roots = [parse_location(table) for table in tables or ()]
    for root in roots:
        if not root.is_dir():
            raise RequestError(f"`tables` {root}", "a folder that exists", "Correct the option.")
    roots += deployment_outputs(find_server(store), read_record(store))
    found = find_holders(store, contents, roots)
    changed = 0
    if undo:
        changed = readmit_images(store, contents)
    elif not dry_run:
        changed = exclude_images(store, contents, user_name())
    if as_json:
        print_json(
            {
                "images": sorted(contents),
                "holdings": [asdict(holding) for holding in found.holdings],
                "not_searched": list(found.not_searched),
                "tables_searched": found.tables,
                "excluded": 0 if undo else changed,
                "readmitted": changed if undo else 0,
            }
        )
        return
    _print(found, len(contents))
    if dry_run:
        print("Nothing was excluded, because of --dry-run.")
    elif undo:
        print(f"{changed} of {len(contents)} taken off the exclusion list; the next retraining may use them.")
    else:
        known = len(contents) - changed
        print(
            f"{changed} put on the exclusion list of {store}{f', {known} were on it' if known else ''}. The "
            "next retraining leaves them out, and its manifest says so; versions and tables stay as they are."
        )


def _content_of(image: str) -> str:
    """The SHA-256 that an argument stands for, in lower case.

    Raises:
        RequestError: It is neither a SHA-256 nor a file.
    """
    if _SHA256.fullmatch(image):
        return image.lower()
    if not Path(image).is_file():
        raise RequestError(
            f"{printable(repr(image))}, which is no file",
            "the 64 hexadecimal digits of a SHA-256, as in the column image_sha256, or an image file",
            "Correct it.",
        )
    return sha256_of(Path(image))


def _print(found: "SearchResult", images: int) -> None:
    searched = f"{found.tables} table{'s' * (found.tables != 1)} searched"
    if found.holdings:
        rows = [
            (holding.sha256[:12], holding.kind, printable(holding.name), printable(holding.detail))
            for holding in found.holdings
        ]
        print(render_table(rows))
    else:
        print(f"No split, version or table holds {'it' if images == 1 else 'any of them'} ({searched}).")
    for line in found.not_searched:
        print(f"not searched: {printable(line)}")
