"""Checks of single fields as they come off the wire; each failure names the field, never the value."""

import asyncio
import re
from collections.abc import Callable
from datetime import date
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import grpc
from onecard.v1 import common_pb2

from server.cards.directory import CredentialKind
from server.cards.identifiers import parse_identification_code, parse_identity_number, parse_pan
from server.errors import DeadlineError, MalformedFieldError

AMOUNT_MINOR_MAX = 999_999_999_999
T = TypeVar("T")
E = TypeVar("E", bound=IntEnum)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_CATALOGUE_ITEM = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]*", re.ASCII)


class HasPurpose(Protocol):
    """A request that names the catalogue item it serves."""

    @property
    def catalogue_item(self) -> str: ...
    @property
    def catalogue_item_version(self) -> int: ...


def parsed(field: str, parse: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Runs a parser of the domain and turns its ``ValueError`` into the field's error.

    Raises:
        MalformedFieldError: the value breaks its rule.
    """
    try:
        return parse(*arguments, **options)
    except ValueError as error:
        raise MalformedFieldError(field, str(error)) from None


def request_id(text: str) -> str:
    """A UUID in its canonical lower-case form; the nil UUID is refused.

    Raises:
        MalformedFieldError: not a UUID.
    """
    lower = text.lower()
    if not _UUID.fullmatch(lower) or lower == "00000000-0000-0000-0000-000000000000":
        raise MalformedFieldError("request_id", "must be a UUID")
    return lower


def purpose(request: HasPurpose) -> tuple[str, int]:
    """Catalogue item and version.

    Raises:
        MalformedFieldError: either is malformed.
    """
    if not _CATALOGUE_ITEM.fullmatch(request.catalogue_item):
        raise MalformedFieldError("catalogue_item", "must be 1 to 32 of a-z, 0-9, dot and hyphen")
    if not 1 <= request.catalogue_item_version <= 2**31 - 1:
        raise MalformedFieldError("catalogue_item_version", "must be at least 1")
    return request.catalogue_item, request.catalogue_item_version


def amount_minor(field: str, value: int, *, minimum: int = 1) -> int:
    """An amount in 分.

    Raises:
        MalformedFieldError: out of bounds.
    """
    if not minimum <= value <= AMOUNT_MINOR_MAX:
        raise MalformedFieldError(field, f"must be {minimum} to {AMOUNT_MINOR_MAX}")
    return value


def visible(field: str, text: str, *, length_min: int = 0, length_max: int) -> str:
    """Visible ASCII without spaces.

    Raises:
        MalformedFieldError: other characters, too short or too long.
    """
    if not length_min <= len(text) <= length_max or not _VISIBLE.fullmatch(text):
        raise MalformedFieldError(field, f"must be {length_min} to {length_max} visible ASCII characters")
    return text


def exactly(field: str, value: bytes, *, size: int) -> bytes:
    """Bytes of one length.

    Raises:
        MalformedFieldError: another length.
    """
    if len(value) != size:
        raise MalformedFieldError(field, f"must be {size} bytes")
    return value


def digits(field: str, text: str, *, size: int, default: str = "") -> str:
    """A fixed number of decimal digits; empty gives ``default`` where there is one.

    Raises:
        MalformedFieldError: anything else.
    """
    if not text and default:
        return default
    if len(text) != size or not (text.isascii() and text.isdigit()):
        raise MalformedFieldError(field, f"must be {size} digits")
    return text


def member(field: str, enum: type[E], value: int) -> E:
    """A member of ``enum``; UNSPECIFIED and the numbers of newer callers are refused.

    Raises:
        MalformedFieldError: no member has this number.
    """
    try:
        return enum(value)
    except ValueError:
        raise MalformedFieldError(field, "must be one of the named values") from None


def calendar_date(field: str, text: str) -> date:
    """A date written YYYYMMDD.

    Raises:
        MalformedFieldError: not eight digits, or no such day.
    """
    digits(field, text, size=8)
    return parsed(field, date, int(text[:4]), int(text[4:6]), int(text[6:]))


def card_reference(reference: common_pb2.CardReference, *, today: date) -> tuple[CredentialKind, str]:
    """What names the card: its kind and its canonical form.

    Raises:
        MalformedFieldError: none is set, or it is malformed.
    """
    which = reference.WhichOneof("reference")
    if which == "pan":
        return CredentialKind.PAN, parsed("card.pan", parse_pan, reference.pan)
    if which == "identification_code":
        code = parsed("card.identification_code", parse_identification_code, reference.identification_code)
        return CredentialKind.IDENTIFICATION_CODE, code
    if which == "identity_number":
        number = parsed("card.identity_number", parse_identity_number, reference.identity_number, today=today)
        return CredentialKind.IDENTITY_NUMBER, number
    raise MalformedFieldError("card", "must name a card by exactly one identifier")


def deadline(context: "grpc.aio.ServicerContext[Any, Any]", *, default_ms: int) -> float:
    """The call's deadline in seconds of the loop's clock.

    Raises:
        DeadlineError: it has passed.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        remaining_s = default_ms / 1000
    if remaining_s <= 0:
        raise DeadlineError
    return asyncio.get_running_loop().time() + remaining_s
