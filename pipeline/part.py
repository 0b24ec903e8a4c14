"""The base class of every part of a recipe, and the types of its fields."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Numbers are strict: a text or boolean in place of a number is reported, not converted.
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Text = Annotated[str, Field(min_length=1)]


def _with_a_hash(address: str) -> str:
    """Require the SHA-256 of a file from the web."""
    if address.startswith(WEB) and not re.search(r"#sha256=[0-9a-fA-F]{64}$", address):
        raise ValueError("a URL that ends in #sha256= and the 64 digits of the file's SHA-256")
    return address


WEB = ("http://", "https://")
WeightsSource = Annotated[str, Field(min_length=1), AfterValidator(_with_a_hash)]
"""Where weights come from: a path, a URL that ends in `#sha256=HASH`, or a name."""


class Part(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
