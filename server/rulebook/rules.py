"""What a rule may say, one class for each kind; pure.

A rule is a JSON object whose keys are the fields of its class, units last. A key that is left out takes the field's
default; None means no limit. An unknown key, a wrong type or a value out of bounds is refused, never ignored: a
misspelt limit must not be no limit.
"""

import json
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias, get_args, get_type_hints

AMOUNT_MAX_MINOR = 999_999_999_999
# What a card's use of its limits can count to: 16 bits.
COUNT_MAX = 65_535
# By the end of the key, the first that fits: the least and the most. A window or a life of nothing would be no limit.
_BOUNDS = {
    "velocity_count_max": (0, 255),
    "_count_max": (0, COUNT_MAX),
    "_minor": (0, AMOUNT_MAX_MINOR),
    "_window_s": (1, 86_400),
    "_percent": (0, 100),
    "hold_days": (1, 365),
}
_CATEGORY = re.compile(r"[0-9]{4}", re.ASCII)
_SUBJECT = re.compile(r"[a-z0-9][a-z0-9-]{1,31}/[\x21-\x7e]{1,16}", re.ASCII)
_PARTICIPANT = re.compile(r"[a-z0-9][a-z0-9-]{1,31}", re.ASCII)
_KEY_NAME = re.compile(r"[a-z0-9-]{1,48}", re.ASCII)
_WALLET = re.compile(r"[1-9][0-9]?", re.ASCII)
_KEY = re.compile(r"[a-z_]{1,40}", re.ASCII)
WALLET_MAX = 99
NAME_LENGTH_MAX = 40
CONTENT_LENGTH_MAX = 4_000


class Channel(IntEnum):
    """How money leaves a card; each has limits of its own. Numbers are stored."""

    CHIP = 1
    CASH = 2
    TAP = 3
    CODE = 4
    CARD_ON_FILE = 5
    TRANSFER = 6
    PRE_AUTHORIZATION = 7


_CHANNELS = [channel.name.lower() for channel in Channel]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """Limits of a channel; the card's own come on top. ``pin_required_above_minor`` 0 asks for a PIN always."""

    pin_required_above_minor: int | None = None
    transaction_amount_max_minor: int | None = None
    day_amount_max_minor: int | None = None
    month_amount_max_minor: int | None = None
    day_count_max: int | None = None
    month_count_max: int | None = None
    velocity_count_max: int | None = None
    velocity_window_s: int = 60
    # For pre-authorizations: how far a completion may pass the hold, and how long money is held.
    capture_tolerance_percent: int = 0
    hold_days: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletRule:
    """What a wallet is for. ``merchant_categories``: a merchant must be registered with one of them; empty: any."""

    name: str
    merchant_categories: frozenset[str] = frozenset()
    cash: bool = False
    transfer: bool = False
    deposit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantRule:
    """A merchant of an acquirer: its category (MCC, ISO 18245) and whether it may take money."""

    category: str = ""
    is_blocked: bool = False
    capture_tolerance_percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalRule:
    """A terminal of an acquirer; ``mac_key`` names the key (MAC key or BDK) under which its messages must be coded."""

    is_blocked: bool = False
    gives_cash: bool = True
    mac_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRule:
    """What an acquirer must have registered before it is served."""

    terminals_registered: bool = False
    merchants_registered: bool = False


Rule: TypeAlias = LimitRule | WalletRule | MerchantRule | TerminalRule | AcceptanceRule
RULE_CLASSES: dict[str, type[Rule]] = {
    "limit": LimitRule,
    "wallet": WalletRule,
    "merchant": MerchantRule,
    "terminal": TerminalRule,
    "acceptance": AcceptanceRule,
}


# Asked for once: a fleet has a hundred thousand rules.
_HINTS = {kind: get_type_hints(rule_class) for kind, rule_class in RULE_CLASSES.items()}
# What stands in the place of a rule that this release cannot read: nothing passes that the rule was there to stop. A
# wallet then pays at no merchant, because none can be registered with such a category, and of a terminal not even an
# advice is posted, because no key has such a name.
UNREADABLE_RULES: dict[str, Rule] = {
    "limit": LimitRule(transaction_amount_max_minor=0, day_count_max=0),
    "wallet": WalletRule(name="?", merchant_categories=frozenset({"none"})),
    "merchant": MerchantRule(is_blocked=True),
    "terminal": TerminalRule(is_blocked=True, gives_cash=False, mac_key="?"),
    "acceptance": AcceptanceRule(terminals_registered=True, merchants_registered=True),
}


def parse_content(text: str) -> dict[str, Any]:
    """The JSON object that a rule is written as.

    Raises:
        ValueError: too long, no JSON object, or a key stands in it twice.
    """
    if len(text) > CONTENT_LENGTH_MAX:
        raise ValueError(f"must be at most {CONTENT_LENGTH_MAX} characters")
    try:
        content = json.loads(text, object_pairs_hook=_once_each)
    except json.JSONDecodeError:
        raise ValueError("must be a JSON object") from None
    except RecursionError:
        raise ValueError("must be a JSON object of one level") from None
    if not isinstance(content, dict):
        raise ValueError("must be a JSON object")
    return content


def parse_rule(kind: str, content: dict[str, Any]) -> Rule:
    """The rule that ``content`` says.

    Raises:
        ValueError: unknown kind or key, wrong type, or out of bounds; names the key, never its value.
    """
    rule_class = RULE_CLASSES.get(kind)
    if rule_class is None:
        raise ValueError(f"kind: must be one of {', '.join(RULE_CLASSES)}")
    hints = _HINTS[kind]
    for key in sorted(set(content) - set(hints)):
        # What is no name at all is not repeated.
        raise ValueError(f"{key if _KEY.fullmatch(key) else 'content'}: a {kind} rule has no such key")
    values = {key: _checked(key, hints[key], value) for key, value in content.items()}
    try:
        return rule_class(**values)
    except TypeError:
        raise ValueError("name: is required") from None


def check_subject(kind: str, subject: str) -> None:
    """
    Raises:
        ValueError: the subject names nothing that a rule of this kind can be for.
    """
    if kind == "limit":
        if subject not in _CHANNELS:
            raise ValueError(f"must be one of {', '.join(_CHANNELS)}")
    elif kind == "wallet":
        if not _WALLET.fullmatch(subject):
            raise ValueError(f"must be 1 to {WALLET_MAX}")
    elif kind == "acceptance":
        if not _PARTICIPANT.fullmatch(subject):
            raise ValueError("must be a participant")
    elif not _SUBJECT.fullmatch(subject):
        raise ValueError("must be participant/identifier")


def acquirer_of(kind: str, subject: str) -> str | None:
    """The participant that a rule's subject belongs to; None where it is everybody's."""
    return None if kind in ("limit", "wallet") else subject.partition("/")[0]


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("must name each key once")
    return content


def _checked(key: str, hint: Any, value: Any) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{key}: must be true or false")
        return value
    if hint is str:
        return _checked_text(key, value)
    if hint == frozenset[str]:
        if not isinstance(value, list) or not all(
            isinstance(v, str) and _CATEGORY.fullmatch(v) for v in value
        ):
            raise ValueError(f"{key}: must be a list of four digits each")
        return frozenset(value)
    minimum, maximum = next(bounds for end, bounds in _BOUNDS.items() if key.endswith(end))
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise ValueError(f"{key}: must be a whole number, {minimum} to {maximum}")
    return value


def _checked_text(key: str, value: Any) -> str:
    if key == "mac_key":
        if not isinstance(value, str) or (value and not _KEY_NAME.fullmatch(value)):
            raise ValueError("mac_key: must be 1 to 48 of a-z, 0-9 and hyphen")
        return value
    if not isinstance(value, str) or len(value) > NAME_LENGTH_MAX or not value.isprintable():
        raise ValueError(f"{key}: must be at most {NAME_LENGTH_MAX} printable characters")
    if key == "name" and not value:
        raise ValueError("name: is required")
    if key == "category" and value and not _CATEGORY.fullmatch(value):
        raise ValueError("category: must be four digits")
    return value
