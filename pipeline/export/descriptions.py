"""What a bundle says of itself, for people and for other programs."""

from pathlib import Path
from typing import Any

from pixelmill.pipeline.export.bill_of_materials import write_bill
from pixelmill.pipeline.export.model_card import gather_card, write_card
from pixelmill.pipeline.export.readme import write_readme


def write_descriptions(folder: Path, facts: dict[str, Any]) -> None:
    """Write the README, the model card and the bill of materials of a bundle, whose other files are final.

    Args:
        folder: The bundle's folder, before its manifest.
        facts: The content of the manifest.
    """
    write_readme(folder, facts)
    card = gather_card(folder, facts)
    write_card(folder, card)
    write_bill(folder, card)
