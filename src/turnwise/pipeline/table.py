"""What every table of a recipe is."""

from pydantic import BaseModel, ConfigDict

Finding = tuple[str, str]  # the dotted key, and why it cannot stand


class Table(BaseModel):
    """Base of every table: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
