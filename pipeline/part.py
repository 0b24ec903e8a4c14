"""The base class of every part of a recipe, and the types of its fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Numbers are strict: a text or boolean in place of a number is reported, not converted.
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
