"""What every group of settings is: frozen, strict about names, written in kebab-case."""

from pydantic import BaseModel, ConfigDict


def kebab(name: str) -> str:
    """Write a name as settings are written."""
    return name.replace("_", "-")


class Section(BaseModel):
    """A frozen group of settings; keys are written in kebab-case."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=kebab, populate_by_name=True, strict=False)
