"""Which images a table has, whatever its format."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pixelmill.pipeline.predictions.csv_format import identity_blocks
from pixelmill.pipeline.predictions.parts import row_groups_of
from pixelmill.pipeline.predictions.table import StoredTable

if TYPE_CHECKING:
    import pyarrow as pa


def read_identities(table: StoredTable) -> "Iterator[pa.Table]":
    """The columns `image_path`, `image_sha256` and `status` of all rows, one block in memory at a time.

    Raises:
        DamagedTable: A file is not the one in the manifest.
    """
    for file in table.files:
        with file.opened() as content:
            if table.is_csv:
                yield from identity_blocks(content)
            else:
                yield from row_groups_of(content, ("image_path", "image_sha256", "status"))
