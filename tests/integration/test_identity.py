"""Who stands at the counter: by chip, by card code, by name and number; and what stops each."""

import asyncio
import base64
import time

import pytest
from core_under_test import (
    CALL_S,
    Caller,
    Core,
    code_issue,
    loss_lift,
    loss_report,
    name_and_number,
    new_id,
    purchase,
    refusal_of,
    verification,
)
from onecard.v1 import common_pb2, identity_pb2
from virtual_card import VirtualCard

from crypto.card_code import CardCodes
from crypto.card_code import CardCodeUse as Use
from server.cards.rules import CardStatus

VERIFIED = (True, "CARD_PRESENT", "VERIFIED")
KNOWN = (True, "KNOWLEDGE", "VERIFIED")


def told(response: identity_pb2.VerifyIdentityResponse) -> tuple[bool, str, str]:
    return (
        response.verified,
        identity_pb2.AssuranceLevel.Name(response.level).removeprefix("ASSURANCE_LEVEL_"),
        identity_pb2.IdentityReason.Name(response.reason).removeprefix("IDENTITY_REASON_"),
    )


def no(reason: str) -> tuple[bool, str, str]:
    return (False, "UNSPECIFIED", reason)


async def by_name(caller: Caller, card: VirtualCard) -> tuple[bool, str, str]:
    return told(await caller.verify(name_and_number=name_and_number(card)))


async def by_chip(caller: Caller, card: VirtualCard) -> tuple[bool, str, str]:
    return told(await caller.verify(chip=card.answer(await caller.challenge())))


async def by_code(caller: Caller, code: str) -> tuple[bool, str, str]:
    return told(await caller.verify(card_code=code))


def card_codes(core: Core) -> CardCodes:
    return core.store.card_codes(core.store.active("card-code"))


async def test_holder_is_verified_by_chip_by_code_and_by_name(core: Core, bank: Caller) -> None:
    card = core.card()
    assert await by_chip(bank, card) == VERIFIED
    assert await by_code(bank, await bank.card_code(card)) == VERIFIED
    assert await by_name(bank, card) == KNOWN


@pytest.mark.parametrize(
    "change", [str.lower, lambda n: n.translate(str.maketrans("0123456789X", "０１２３４５６７８９Ｘ"))]
)
async def test_spelling_of_the_number_does_not_matter(core: Core, bank: Caller, change: object) -> None:
    while not (card := core.card()).identity_number.endswith("X"):
        pass
    stated = identity_pb2.NameAndNumber(
        name=f" {card.name[0]} {card.name[1:]} ",
        identity_number=change(card.identity_number),  # type: ignore[operator]
    )
    assert told(await bank.verify(name_and_number=stated)) == KNOWN


async def test_old_number_of_15_digits_names_its_holder(core: Core, bank: Caller) -> None:
    card = core.card()
    number = card.identity_number
    assert number[6:8] == "19"
    stated = identity_pb2.NameAndNumber(name=card.name, identity_number=number[:6] + number[8:17])
    assert told(await bank.verify(name_and_number=stated)) == KNOWN


async def test_wrong_name_and_unknown_number_give_the_same_answer(core: Core, bank: Caller) -> None:
    card, unknown = core.card(), core.unissued_card()
    wrong = identity_pb2.NameAndNumber(name="欧阳无名", identity_number=card.identity_number)
    answers = [
        await bank.raw("IdentityService/VerifyIdentity", verification(name_and_number=stated))
        for stated in (wrong, name_and_number(unknown))
    ]
    assert answers[0] == answers[1]
    assert told(identity_pb2.VerifyIdentityResponse.FromString(answers[0])) == no("MISMATCH")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (CardStatus.SEALED, "CARD_NOT_USABLE"),
        (CardStatus.LOST, "CARD_LOST"),
        (CardStatus.APPLICATION_LOCKED, "CARD_NOT_USABLE"),
        (CardStatus.TEMPORARILY_LOST, "CARD_LOST"),
        (CardStatus.CANCELLED, "CARD_NOT_USABLE"),
    ],
)
async def test_card_not_in_use_verifies_nobody(
    core: Core, bank: Caller, status: CardStatus, reason: str
) -> None:
    card = core.card()
    code = await bank.card_code(card)
    await core.set_status(card, status)
    assert await by_chip(bank, card) == no(reason)
    assert await by_code(bank, code) == no(reason)
    assert await by_name(bank, card) == no(reason)
    refusal = await refusal_of(bank.identity.IssueCardCode(code_issue(card), timeout=CALL_S))
    assert (refusal.code.name, refusal.reason) == ("FAILED_PRECONDITION", "CARD_NOT_USABLE")


async def test_expired_card_verifies_nobody(core: Core, bank: Caller) -> None:
    card = core.card()
    statement = "UPDATE cards SET expires_on = '2020-01-01' WHERE card_id = $1"
    await core.database.execute(statement, await core.card_id(card))
    assert await by_chip(bank, card) == no("CARD_EXPIRED")
    assert await by_name(bank, card) == no("CARD_EXPIRED")
    refusal = await refusal_of(bank.identity.IssueCardCode(code_issue(card), timeout=CALL_S))
    assert refusal.reason == "CARD_NOT_USABLE"


async def test_loss_report_stops_every_credential_on_the_next_request(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(4)]
    for number in range(8):
        card = core.card()
        reporter, witness = callers[number % 4], callers[(number + 1) % 4]
        code, challenge = await bank.card_code(card), await witness.challenge()
        # Every worker has the card in its cache by now.
        for caller in callers:
            assert await by_name(caller, card) == KNOWN
        await reporter.cards.ReportLoss(loss_report(card), timeout=CALL_S)
        answers = await asyncio.gather(
            witness.authorize(purchase(card)),
            witness.verify(chip=card.answer(challenge)),
            witness.verify(card_code=code),
            witness.verify(name_and_number=name_and_number(card)),
        )
        assert answers[0].response_code == "41"
        assert [told(answer) for answer in answers[1:]] == [no("CARD_LOST")] * 3
        await reporter.cards.LiftLoss(loss_lift(card), timeout=CALL_S)
        assert (await witness.authorize(purchase(card))).response_code == "00"
        assert await by_chip(witness, card) == VERIFIED


async def test_code_serves_once(core: Core, bank: Caller) -> None:
    code = await bank.card_code(core.card())
    assert await by_code(bank, code) == VERIFIED
    assert await by_code(bank, code) == no("CREDENTIAL_USED")


async def test_code_presented_on_two_connections_at_once_serves_one(core: Core) -> None:
    callers = [core.caller() for _ in range(6)]

    async def race(number: int) -> list[tuple[bool, str, str]]:
        code = await callers[number % 6].card_code(core.card())
        return sorted(await asyncio.gather(*(by_code(callers[(number + n) % 6], code) for n in range(3))))

    outcomes = await asyncio.gather(*(race(number) for number in range(40)))
    assert outcomes == [[no("CREDENTIAL_USED")] * 2 + [VERIFIED]] * 40


async def test_payment_code_is_not_accepted_and_used_up(core: Core, bank: Caller) -> None:
    code = await bank.card_code(core.card(), use=identity_pb2.CARD_CODE_USE_PAYMENT)
    assert await by_code(bank, code) == no("CODE_USE_NOT_ALLOWED")
    assert not (await bank.verify(card_code=code)).verified


@pytest.mark.parametrize("use", [Use.INQUIRY, Use.OTHER, Use.CARE_ELSEWHERE])
async def test_codes_of_other_uses_are_accepted(core: Core, bank: Caller, use: Use) -> None:
    assert await by_code(bank, await bank.card_code(core.card(), use=int(use))) == VERIFIED


@pytest.mark.parametrize(("age_s", "reason"), [(70, "CREDENTIAL_EXPIRED"), (-20, "CREDENTIAL_EXPIRED")])
async def test_code_outside_its_life_is_expired(core: Core, bank: Caller, age_s: int, reason: str) -> None:
    alias = core.card().facts.card_alias
    code = card_codes(core).issue(card_alias=alias, use=Use.OTHER, issued_at_s=int(time.time()) - age_s)
    assert await by_code(bank, code) == no(reason)
    # Expired is not used up: nothing was written for it.
    assert await by_code(bank, code) == no(reason)


async def test_forged_code_is_invalid(core: Core, bank: Caller) -> None:
    code = await bank.card_code(core.card())
    raw = base64.urlsafe_b64decode(code)
    for position in (0, 1, 2, 9, 13, 20, 22, 23, 38):
        forged = bytearray(raw)
        forged[position] ^= 1
        text = base64.urlsafe_b64encode(bytes(forged)).decode()
        assert await by_code(bank, text) == no("CREDENTIAL_INVALID")
    for text in (code[:-1], code + "A", "x", code.swapcase()):
        assert await by_code(bank, text) == no("CREDENTIAL_INVALID")
    assert await by_code(bank, code) == VERIFIED


async def test_genuine_code_of_no_card_is_a_mismatch(core: Core, bank: Caller) -> None:
    code = card_codes(core).issue(card_alias=b"no card!", use=Use.OTHER, issued_at_s=int(time.time()))
    assert await by_code(bank, code) == no("MISMATCH")


async def test_repeated_issue_gives_the_same_code_and_other_ids_others(core: Core, bank: Caller) -> None:
    card = core.card()
    request = code_issue(card)
    issued = await bank.identity.IssueCardCode(request, timeout=CALL_S)
    assert await bank.identity.IssueCardCode(request, timeout=CALL_S) == issued
    assert await bank.card_code(card) != issued.card_code
    assert len(issued.card_code) <= 64
    life_s = issued.expires_at_unix_ms / 1000 - time.time()
    assert 50 < life_s <= 61


@pytest.mark.parametrize("kind", ["pan", "identification_code", "identity_number"])
async def test_code_is_issued_for_a_card_by_any_of_its_names(core: Core, bank: Caller, kind: str) -> None:
    card = core.card()
    reference = common_pb2.CardReference(**{kind: getattr(card, kind)})
    assert await by_code(bank, await bank.card_code(card, card=reference)) == VERIFIED
    unknown = common_pb2.CardReference(**{kind: getattr(core.unissued_card(), kind)})
    refusal = await refusal_of(bank.card_code(card, card=unknown))
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "CARD_UNKNOWN")


async def test_challenge_of_another_caller_is_invalid(core: Core, bank: Caller, other_bank: Caller) -> None:
    card = core.card()
    challenge = await other_bank.challenge()
    assert told(await bank.verify(chip=card.answer(challenge))) == no("CREDENTIAL_INVALID")
    assert told(await other_bank.verify(chip=card.answer(challenge))) == VERIFIED


async def test_chip_of_another_card_and_unknown_code_are_refused_alike(core: Core, bank: Caller) -> None:
    card, other, unknown = core.card(), core.card(), core.unissued_card()
    pretended = other.answer(await bank.challenge(), identification_code=card.identification_code)
    assert told(await bank.verify(chip=pretended)) == no("CREDENTIAL_INVALID")
    assert told(await bank.verify(chip=unknown.answer(await bank.challenge()))) == no("CREDENTIAL_INVALID")


async def test_requests_of_one_id_on_many_connections_use_a_code_once(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    request = verification(card_code=await callers[0].card_code(core.card()), request_id=new_id())
    answers = await asyncio.gather(
        *(caller.raw("IdentityService/VerifyIdentity", request) for caller in callers for _ in range(3))
    )
    assert len(set(answers)) == 1
    assert told(identity_pb2.VerifyIdentityResponse.FromString(answers[0])) == VERIFIED
