"""40 models with what Pydantic can say in a schema, for the contracts of schemas and of the openai package."""

import datetime
import decimal
import enum
import ipaddress
import typing
import uuid

import pydantic
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field


class Color(str, enum.Enum):
    red = "red"
    blue = "blue"


class Level(enum.IntEnum):
    low = 1
    high = 2


class Address(BaseModel):
    street: str
    city: str = Field(min_length=1, max_length=40)
    zip: str = Field(pattern=r"^\d{5}(-\d{4})?$")


class Cat(BaseModel):
    kind: typing.Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: typing.Literal["dog"]
    good: typing.Literal[True]


class Pet(BaseModel):
    """Every kind of choice that Pydantic writes in its own way."""

    version: typing.Literal[1]
    size: typing.Literal["small", "large"]
    color: Color
    owner: typing.Literal["me"] | None
    animal: Cat | Dog
    neighbour: Cat | Dog = Field(discriminator="kind")


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    b: str | None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]
    name: str


Item = typing.TypeVar("Item")


class Page(BaseModel, typing.Generic[Item]):
    items: list[Item]
    next: int | None = None


FIELDS = {
    "Text": {"a": (str, ...), "b": (str, "x")},
    "Numbers": {"a": (int, ...), "b": (float, ...), "c": (bool, ...)},
    "Optional": {"a": (str | None, None), "b": (typing.Optional[int], ...)},
    "Lists": {"a": (list[str], ...), "b": (list[list[int]], [])},
    "Maps": {"a": (dict[str, int], ...), "b": (dict[str, list[bool]], {})},
    "Choice": {"a": (typing.Literal["x", "y", 3], ...)},
    "Single": {"a": (typing.Literal["only"], "only")},
    "Enums": {"a": (Color, ...), "b": (Level, Level.low)},
    "Nested": {"a": (Address, ...), "b": (list[Address], ...)},
    "Union": {"a": (int | str | None, ...), "b": (list[int] | dict[str, int], ...)},
    "Pets": {"a": (typing.Annotated[Cat | Dog, Field(discriminator="kind")], ...)},
    "PetList": {"a": (list[typing.Annotated[Cat | Dog, Field(discriminator="kind")]], ...)},
    "Pair": {"a": (tuple[int, str], ...), "b": (tuple[bool, ...], ...)},
    "Lengths": {"a": (typing.Annotated[str, Field(min_length=2, max_length=5)], ...)},
    "Bounds": {"a": (typing.Annotated[int, Field(gt=3, lt=1000)], ...), "b": (typing.Annotated[int, Field(ge=-5)], ...)},
    "FloatBounds": {"a": (typing.Annotated[float, Field(ge=0, le=1)], ...), "b": (typing.Annotated[float, Field(gt=-2.5, lt=99.75)], ...)},
    "Multiples": {"a": (typing.Annotated[int, Field(multiple_of=5)], ...), "b": (typing.Annotated[float, Field(multiple_of=0.25, ge=0, le=50)], ...)},
    "Items": {"a": (typing.Annotated[list[int], Field(min_length=1, max_length=3)], ...)},
    "Pattern": {"a": (typing.Annotated[str, Field(pattern=r"^[A-Z]{2}-\d+$")], ...)},
    "PatternLength": {"a": (typing.Annotated[str, Field(pattern=r"^\w+$", min_length=3, max_length=8)], ...)},
    "Dates": {"a": (datetime.date, ...), "b": (datetime.datetime, ...), "c": (datetime.time, ...)},
    "Durations": {"a": (datetime.timedelta, ...)},
    "Ids": {"a": (uuid.UUID, ...), "b": (pydantic.UUID4, ...)},
    "Addresses": {"a": (ipaddress.IPv4Address, ...), "b": (ipaddress.IPv6Address, ...), "c": (pydantic.IPvAnyAddress, ...)},
    "Links": {"a": (pydantic.HttpUrl, ...), "b": (pydantic.AnyUrl, ...)},
    "Sets": {"a": (set[Color], ...), "b": (frozenset[bool], ...)},
    "SetBounds": {"a": (typing.Annotated[set[typing.Literal["x", "y", "z"]], Field(min_length=1, max_length=2)], ...)},
    "Secrets": {"a": (pydantic.SecretStr, ...)},
    "Bytes": {"a": (bytes, ...)},
    "Base64": {"a": (pydantic.Base64Bytes, ...)},
    "Anything": {"a": (typing.Any, ...), "b": (list[typing.Any], [])},
    "Descriptions": {"a": (int, Field(description="an int", examples=[1], title="A", json_schema_extra={"x-order": 1}))},
    "Aliases": {"a": (int, Field(alias="the value")), "b": (str, Field(alias="é\"q"))},
    "Decimals": {"a": (typing.Annotated[decimal.Decimal, Field(ge=0, max_digits=5, decimal_places=2)], ...)},
    "Typed": {"a": (typing_extensions.TypedDict("Point", {"x": int, "y": typing_extensions.NotRequired[int]}), ...)},
}

MODELS = [pydantic.create_model(name, **fields) for name, fields in FIELDS.items()] + [Pet, Tree, Strict, Open, Page[Cat]]
assert len(MODELS) == 40
# Their schemas also allow texts that Pydantic does not read, such as "-1" for a Decimal of at least 0.
LOOSE = {"Decimals"}
