"""PIN, card code, token and message code in the order of the reasons, and what each leaves untouched before it."""

import itertools
from collections.abc import Callable

import pytest
from money_scene import CARD, NOW
from test_decision_precedence import (
    CARDS,
    CAUSES,
    CHIP,
    FUNDS,
    LIMITS,
    NEW,
    PLACE,
    STATUSES,
    WALLET,
    Cause,
    Trial,
    ask_for_pin,
    name_nothing,
    trial,
)

from crypto.card_code import CardCode, CardCodeUse
from crypto.errors import KeyUsageError, MacInvalidError, PinBlockInvalidError
from crypto.key_store.requests import EncryptedPin, MacCheck, MacRequest, PinReferences
from crypto.keys import KeyRef
from crypto.pin_block import PinBlockFormat
from server.authorization.credentials import Credentials, PresentedCode, PresentedMac, PresentedPin
from server.authorization.rules import Reason
from server.cards.card_tokens import CardToken
from server.cards.pin_rules import PIN_TRIES_MAX, StoredPin
from server.cards.rules import CardStatus
from server.engine.operation import OperationKind as Kind
from server.errors import StateConflictError, UnavailableError
from server.rulebook.rules import Channel, TerminalRule

RIGHT, OTHER = "417203", "417204"
PVK_VERSION = 2
TOKEN, DIGEST = b"t" * 16, b"d" * 32
LIFE_S = 65
NOW_S = int(NOW.timestamp())


def references(reference: str, *, version: int = PVK_VERSION) -> PinReferences:
    return PinReferences(by_version={version: reference}, active_version=version)


def mac(*, fits: bool, name: str = "mac-key") -> PresentedMac:
    request = MacRequest(key=KeyRef(name, 1), ksn=b"", message=b"m", padding=None, size=8)
    failure = None if fits else MacInvalidError("other code")
    return PresentedMac(MacCheck(request=request, mac=bytes(8)), failure)


def credentials(t: Trial) -> Credentials:
    if t.operation.credentials is None:
        t.operation.credentials = Credentials()
    t.operation.credentials.checked = True
    return t.operation.credentials


def with_pin(kind: Kind) -> Trial:
    t = trial(kind)
    block = EncryptedPin(
        key=KeyRef("zpk", 1), ksn=b"", format=PinBlockFormat.SM4_0, block=bytes(16), pan="6217000000000000008"
    )
    credentials(t).pin = PresentedPin(block, references(RIGHT))
    t.scene.batch.pins[CARD] = StoredPin(PVK_VERSION, RIGHT, unblocks=1)
    return t


def by_code(kind: Kind = Kind.PURCHASE) -> Trial:
    t = trial(kind)
    t.operation.cryptogram = None
    t.operation.channel = Channel.CODE if kind is Kind.PURCHASE else None
    code = CardCode(card_alias=bytes(8), issued_at_s=NOW_S, use=CardCodeUse.PAYMENT, key_version=1)
    credentials(t).code = PresentedCode(code, bytes(16), DIGEST, LIFE_S, only_names=False)
    return t


def by_token(kind: Kind) -> Trial:
    t = trial(kind)
    t.operation.cryptogram = None
    if kind is Kind.PURCHASE:
        t.operation.channel = Channel.CARD_ON_FILE
    credentials(t).token_index = TOKEN
    t.scene.batch.card_tokens[TOKEN] = CardToken(0, CARD)
    return t


def set_pin(t: Trial, answer: PinReferences | PinBlockInvalidError | KeyUsageError) -> None:
    pin = credentials(t).pin
    assert pin is not None
    pin.answer = answer


def set_code(t: Trial, **parts: object) -> None:
    code = credentials(t).code
    assert code is not None
    assert code.code is not None
    known = {name: getattr(code.code, name) for name in ("card_alias", "issued_at_s", "use", "key_version")}
    code.code = CardCode(**{**known, **parts})  # type: ignore[arg-type]


MAC: dict[Reason, Cause] = {
    Reason.MESSAGE_MAC_INVALID: lambda t: setattr(credentials(t), "mac", mac(fits=False))
}
PIN: dict[Reason, Cause] = {
    Reason.NO_PIN: lambda t: t.scene.batch.pins.clear(),
    Reason.PIN_TRIES_EXCEEDED: lambda t: (
        setattr(t.scene.card, "pin_tries", PIN_TRIES_MAX) if t.scene.card else None
    ),
    Reason.PIN_BLOCK_INVALID: lambda t: set_pin(t, PinBlockInvalidError("no digits")),
    Reason.WRONG_PIN: lambda t: set_pin(t, references(OTHER)),
}
CODE: dict[Reason, Cause] = {
    Reason.CARD_CODE_INVALID: lambda t: set_code(t, use=CardCodeUse.OTHER),
    Reason.CARD_CODE_EXPIRED: lambda t: set_code(t, issued_at_s=NOW_S - LIFE_S - 1),
    Reason.CARD_CODE_USED: lambda t: t.scene.batch.spent_tokens.add(DIGEST),
}
TOKENS: dict[Reason, Cause] = {
    Reason.CARD_TOKEN_UNKNOWN: lambda t: setattr(t.scene.batch.card_tokens[TOKEN], "is_revoked", True)
}
FOUND = {reason: cause for reason, cause in CARDS.items() if reason is not Reason.UNKNOWN_CARD}
ENTRIES: dict[str, tuple[Callable[[], Trial], dict[Reason, Cause]]] = {
    "pin-PURCHASE": (
        lambda: with_pin(Kind.PURCHASE),
        NEW | MAC | PLACE | CARDS | CHIP | PIN | WALLET | LIMITS | FUNDS,
    ),
    "pin-CASH": (lambda: with_pin(Kind.CASH_WITHDRAWAL), NEW | MAC | PLACE | CARDS | CHIP | PIN | WALLET),
    "pin-BALANCE": (lambda: with_pin(Kind.BALANCE_INQUIRY), NEW | MAC | PLACE | CARDS | PIN | WALLET),
    "code-PURCHASE": (by_code, NEW | MAC | PLACE | CARDS | CODE | WALLET | LIMITS | FUNDS),
    "code-BALANCE": (lambda: by_code(Kind.BALANCE_INQUIRY), NEW | MAC | PLACE | CARDS | CODE | WALLET),
    "token-PURCHASE": (
        lambda: by_token(Kind.PURCHASE),
        NEW | MAC | PLACE | TOKENS | FOUND | WALLET | LIMITS | FUNDS,
    ),
    "token-PRE_AUTHORIZATION": (
        lambda: by_token(Kind.PRE_AUTHORIZATION),
        NEW | MAC | PLACE | TOKENS | FOUND | WALLET | LIMITS | FUNDS,
    ),
    "token-INCREMENT": (lambda: by_token(Kind.INCREMENT), NEW | MAC | PLACE | TOKENS | FOUND),
    "token-COMPLETION": (lambda: by_token(Kind.COMPLETION), NEW | MAC | PLACE | TOKENS | FOUND),
}
EXCLUSIVE: tuple[set[Reason], ...] = (
    set(NEW),
    {Reason.TERMINAL_UNKNOWN, Reason.TERMINAL_NOT_PERMITTED},
    {Reason.UNKNOWN_CARD, *STATUSES},
    {Reason.UNKNOWN_CARD, Reason.CARD_EXPIRED},
    {Reason.UNKNOWN_CARD, *CHIP},
    {Reason.UNKNOWN_CARD, *LIMITS},
    {Reason.UNKNOWN_CARD, Reason.PIN_TRIES_EXCEEDED},
    # One block is one or the other.
    {Reason.PIN_BLOCK_INVALID, Reason.WRONG_PIN},
)
ORDER = list(Reason)
PAIRS = [
    pytest.param(name, earlier, later, id=f"{name}-{earlier.name}-{later.name}")
    for name, (_, causes) in ENTRIES.items()
    for earlier, later in itertools.combinations(sorted(causes, key=ORDER.index), 2)
    if not any({earlier, later} <= group for group in EXCLUSIVE)
]
SINGLES = [
    pytest.param(name, reason, id=f"{name}-{reason.name}")
    for name, (_, causes) in ENTRIES.items()
    for reason in causes
]
BEFORE_PIN = set(ORDER[: ORDER.index(Reason.NO_PIN)])
BEFORE_CODE = set(ORDER[: ORDER.index(Reason.CARD_CODE_INVALID)])


@pytest.mark.parametrize("name", ENTRIES)
def test_without_a_cause_each_is_approved(name: str) -> None:
    make, _ = ENTRIES[name]
    made = make()
    assert made.scene.decide(made.operation).reason == Reason.APPROVED


@pytest.mark.parametrize(("name", "reason"), SINGLES)
def test_each_cause_alone_declines_and_what_came_before_it_touches_nothing_else(
    name: str, reason: Reason
) -> None:
    make, causes = ENTRIES[name]
    made = make()
    causes[reason](made)
    card, pins = made.scene.card, made.scene.batch.pins
    tries = card.pin_tries if card is not None else 0
    spent, atc = set(made.scene.batch.spent_tokens), card.atc_highest if card is not None else 0
    assert made.scene.decide(made.operation).reason == reason
    if card is not None:
        assert card.pin_tries == tries + (reason is Reason.WRONG_PIN)
    if reason in BEFORE_PIN | set(PIN) and CARD in pins:
        assert not pins[CARD].changed
    if name.startswith("code"):
        # What comes after the code has used it up.
        is_used = reason not in BEFORE_CODE | set(CODE)
        assert (made.scene.batch.spent_tokens - spent == {DIGEST}) == is_used
    if reason is Reason.MESSAGE_MAC_INVALID and card is not None:
        assert card.atc_highest == atc


@pytest.mark.parametrize(("name", "earlier", "later"), PAIRS)
def test_of_two_causes_the_earlier_reason_wins_and_counts_no_try(
    name: str, earlier: Reason, later: Reason
) -> None:
    make, causes = ENTRIES[name]
    for first, second in ((earlier, later), (later, earlier)):
        made = make()
        causes[first](made)
        causes[second](made)
        tries = made.scene.card.pin_tries if made.scene.card is not None else 0
        assert made.scene.decide(made.operation).reason == earlier
        if made.scene.card is not None:
            assert made.scene.card.pin_tries == tries + (earlier is Reason.WRONG_PIN)


@pytest.mark.parametrize("name", CAUSES)
@pytest.mark.parametrize("demand", [None, "mac-key", "other-key"])
@pytest.mark.parametrize("sent", [None, True, False])
def test_message_code_is_judged_for_every_kind_of_operation(
    name: str, demand: str | None, sent: bool | None
) -> None:
    make, _ = CAUSES[name]
    made = make()
    if demand is not None:
        made.scene.book.terminals["bank-01", "T1"] = TerminalRule(mac_key=demand)
    if sent is not None:
        credentials(made).mac = mac(fits=sent)
    is_in_order = sent is True if demand == "mac-key" else sent is not False and demand is None
    expected = Reason.APPROVED if is_in_order else Reason.MESSAGE_MAC_INVALID
    if name == "VOID-of-yesterday" and is_in_order:
        return
    assert made.scene.decide(made.operation).reason == expected


@pytest.mark.parametrize("reason", [*PIN, Reason.PIN_REQUIRED, Reason.MESSAGE_MAC_INVALID])
def test_whoever_has_no_right_pin_hears_no_balance(reason: Reason) -> None:
    made = with_pin(Kind.PURCHASE)
    if reason is Reason.PIN_REQUIRED:
        made.operation.credentials = None
        ask_for_pin(made)
    else:
        (PIN | MAC)[reason](made)
    outcome = made.scene.decide(made.operation)
    assert (outcome.reason, outcome.message.available_minor) == (reason, 0)
    # The chip hears the answer all the same.
    assert outcome.message.arpc


def test_right_pin_serves_where_one_is_required() -> None:
    made = with_pin(Kind.PURCHASE)
    ask_for_pin(made)
    assert made.scene.decide(made.operation).reason == Reason.APPROVED
    assert made.scene.batch.pins[CARD].unblocks == 0


def test_advice_needs_no_pin() -> None:
    made = trial(Kind.PURCHASE)
    made.operation.is_advice, made.operation.cryptogram = True, None
    ask_for_pin(made)
    assert made.scene.decide(made.operation).reason == Reason.APPROVED


def test_code_that_does_not_open_is_invalid_and_that_of_no_card_is_of_an_unknown_one() -> None:
    for opens, expected in ((False, Reason.CARD_CODE_INVALID), (True, Reason.UNKNOWN_CARD)):
        made = by_code()
        CARDS[Reason.UNKNOWN_CARD](made)
        code = credentials(made).code
        assert code is not None
        if not opens:
            code.code = code.card_index = None
        assert made.scene.decide(made.operation).reason == expected
        assert not made.scene.batch.spent_tokens


@pytest.mark.parametrize("kind", [Kind.VOID, Kind.REFUND, Kind.REVERSAL])
@pytest.mark.parametrize("status", [CardStatus.NORMAL, CardStatus.LOST])
def test_what_gives_back_goes_on_under_a_revoked_token(kind: Kind, status: CardStatus) -> None:
    made = by_token(kind)
    assert made.scene.card is not None
    made.scene.card.status = status
    TOKENS[Reason.CARD_TOKEN_UNKNOWN](made)
    assert made.scene.decide(made.operation).reason == Reason.APPROVED


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.COMPLETION])
def test_advice_is_posted_over_a_revoked_token_and_not_over_one_of_no_card(kind: Kind) -> None:
    made = by_token(kind)
    made.operation.is_advice = True
    TOKENS[Reason.CARD_TOKEN_UNKNOWN](made)
    assert made.scene.decide(made.operation).reason == Reason.FORCED_POST
    unknown = by_token(kind)
    unknown.operation.is_advice = True
    CARDS[Reason.UNKNOWN_CARD](unknown)
    assert unknown.scene.decide(unknown.operation).reason in {
        Reason.CARD_TOKEN_UNKNOWN,
        Reason.ORIGINAL_NOT_FOUND,
    }


def test_code_used_in_one_attempt_is_judged_anew_in_the_next() -> None:
    """A batch that lost a race is decided again: what the first attempt found must not stay."""
    made = by_code()
    assert made.scene.decide(made.operation).message.available_minor > 0
    assert made.scene.card is not None
    made.scene.card.status = CardStatus.LOST
    outcome = made.scene.decide(made.operation)
    assert (outcome.reason, outcome.message.available_minor) == (Reason.CARD_LOST, 0)
    assert not credentials(made).has_genuine_code


def test_without_the_key_store_nothing_is_decided_or_changed() -> None:
    for make in (lambda: with_pin(Kind.PURCHASE), lambda: trial(Kind.DEPOSIT)):
        made = make()
        credentials(made).mac = mac(fits=True)
        credentials(made).checked = False
        with pytest.raises(UnavailableError):
            made.scene.decide(made.operation)
        assert made.scene.card is not None
        assert not made.scene.card.changed


@pytest.mark.parametrize("version", [PVK_VERSION - 1, PVK_VERSION + 1])
def test_pin_that_cannot_be_compared_leaves_the_counter_of_the_chip(version: int) -> None:
    made = with_pin(Kind.PURCHASE)
    set_pin(made, references(RIGHT, version=version))
    with pytest.raises((UnavailableError, StateConflictError)):
        made.scene.decide(made.operation)
    assert made.scene.card is not None
    assert (made.scene.card.atc_highest, made.scene.card.pin_tries, made.scene.card.changed) == (0, 0, False)


def test_key_that_may_not_open_the_pin_is_refused_before_anything_changes() -> None:
    made = with_pin(Kind.PURCHASE)
    set_pin(made, KeyUsageError("for something else"))
    with pytest.raises(StateConflictError):
        made.scene.decide(made.operation)
    assert made.scene.card is not None
    assert not made.scene.card.changed


def test_forged_advice_hears_nothing_of_what_it_names() -> None:
    made = trial(Kind.COMPLETION)
    made.operation.is_advice = True
    MAC[Reason.MESSAGE_MAC_INVALID](made)
    name_nothing(made)
    assert made.scene.decide(made.operation).reason == Reason.MESSAGE_MAC_INVALID
