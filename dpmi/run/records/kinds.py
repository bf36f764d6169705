"""The three kinds of what a run writes down; each class is of one, and a signature says which."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Secret(BaseModel):
    """Whoever has it can take the noise off: in a file for its owner alone, shown nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(secret)"

    __str__ = __repr__


class Private(BaseModel):
    """Facts about the training images that no ε covers: it stays where the images are."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Public(BaseModel):
    """What may leave the house.

    Raises:
        TypeError: a class of this kind is given a field of another kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Look at the fields of a new class."""
        for name, field in cls.model_fields.items():
            for inner in _within(field.annotation):
                if isinstance(inner, type) and issubclass(inner, Secret | Private):
                    raise TypeError(
                        f"{cls.__name__}.{name}: {inner.__name__} is not of the public kind"
                    )


def _within(annotation: Any) -> list[Any]:
    """A type, and those that it is composed of."""
    return [annotation] + [each for part in get_args(annotation) for each in _within(part)]
