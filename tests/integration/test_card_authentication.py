"""Is this the chip it claims to be: challenges serve once and their caller only, and a wrong answer is final."""

import asyncio
import time

import pytest
from core_under_test import (
    Caller,
    Core,
    authentication,
    loss_report,
    purchase,
)
from onecard.v1 import card_authentication_pb2 as pb
from onecard.v1 import common_pb2, identity_pb2
from virtual_card import VirtualCard

from server.cards.directory import CardCipher
from server.cards.rules import CardStatus

CALL_S = 20.0


async def reason_of(caller: Caller, **credential: object) -> str:
    answer = await caller.authentication.AuthenticateCard(authentication(**credential), timeout=CALL_S)
    reason = pb.CardAuthenticationReason.Name(answer.reason).removeprefix("CARD_AUTHENTICATION_REASON_")
    assert answer.authenticated is (reason == "AUTHENTIC")
    return reason


def signed(card: VirtualCard, amount_minor: int = 0, **changes: object) -> pb.CardCryptogram:
    chip = changes.pop("chip", None) or card.sign(amount_minor)
    return pb.CardCryptogram(pan=card.pan, chip=chip, amount_minor=amount_minor, **changes)  # type: ignore[arg-type]


def broken(response: bytes) -> bytes:
    return bytes([response[0] ^ 1]) + response[1:]


async def test_challenge_is_fresh_and_says_when_it_ends(bank: Caller) -> None:
    challenges = [await bank.challenge() for _ in range(3)]
    assert len({c.challenge_token for c in challenges}) == len({c.original_data for c in challenges}) == 3
    for challenge in challenges:
        assert len(challenge.process_factor) == len(challenge.original_data) == 8
        assert 20 < challenge.expires_at_unix_ms / 1000 - time.time() <= 31


@pytest.mark.parametrize("cipher", list(CardCipher), ids=lambda cipher: cipher.name)
async def test_chips_of_every_cipher_answer_and_sign(core: Core, bank: Caller, cipher: CardCipher) -> None:
    first = 2_100_000 + int(cipher)
    await core.seed(1, first=first, cipher=cipher)
    card = VirtualCard(core.store, first, cipher=cipher)
    assert await reason_of(bank, answer=card.answer(await bank.challenge())) == "AUTHENTIC"
    request = authentication(cryptogram=signed(card, 77))
    answer = await bank.authentication.AuthenticateCard(request, timeout=CALL_S)
    assert answer.authenticated
    assert card.accepts(request.cryptogram.chip, arpc=answer.arpc, response_code="00")


async def test_challenge_serves_once(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    challenge = await bank.challenge()
    assert await reason_of(bank, answer=card.answer(challenge)) == "AUTHENTIC"
    assert await reason_of(bank, answer=card.answer(challenge)) == "CHALLENGE_USED"
    assert await reason_of(bank, answer=other.answer(challenge)) == "CHALLENGE_USED"
    # Nor does it serve another RPC.
    verified = await bank.verify(chip=card.answer(challenge))
    assert not verified.verified


async def test_challenge_at_two_connections_at_once_serves_one(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> list[str]:
        card, other = core.card(), core.card()
        challenge = await callers[number % 4].challenge()
        bearers = (card, card, other)
        return sorted(
            await asyncio.gather(
                *(
                    reason_of(callers[(number + n) % 4], answer=bearer.answer(challenge))
                    for n, bearer in enumerate(bearers)
                )
            )
        )

    outcomes = await asyncio.gather(*(race(number) for number in range(30)))
    assert outcomes == [["AUTHENTIC", "CHALLENGE_USED", "CHALLENGE_USED"]] * 30


async def test_challenge_at_two_services_at_once_serves_one(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def verified(caller: Caller, bearer: VirtualCard, challenge: pb.CreateChallengeResponse) -> str:
        answer = await caller.verify(chip=bearer.answer(challenge))
        return identity_pb2.IdentityReason.Name(answer.reason).removeprefix("IDENTITY_REASON_")

    async def race(number: int) -> tuple[str, str]:
        card = core.card()
        # One card or two, on one connection and so in one batch, or on two.
        bearer = card if number % 2 else core.card()
        first, second = callers[number % 4], callers[(number + number // 2 % 2) % 4]
        challenge = await first.challenge()
        if number // 4 % 2:
            told, reason = await asyncio.gather(
                verified(second, bearer, challenge), reason_of(first, answer=card.answer(challenge))
            )
        else:
            reason, told = await asyncio.gather(
                reason_of(first, answer=card.answer(challenge)), verified(second, bearer, challenge)
            )
        return reason, told

    outcomes = await asyncio.gather(*(race(number) for number in range(40)))
    assert set(outcomes) == {("AUTHENTIC", "CREDENTIAL_USED"), ("CHALLENGE_USED", "VERIFIED")}


async def test_right_answer_after_a_wrong_one_is_refused(core: Core, bank: Caller) -> None:
    card = core.card()
    challenge = await bank.challenge()
    right = card.answer(challenge)
    assert (
        await reason_of(bank, answer=card.answer(challenge, response=broken(right.response)))
        == "NOT_AUTHENTIC"
    )
    assert await reason_of(bank, answer=right) == "CHALLENGE_USED"


async def test_challenge_of_another_caller_is_invalid_and_not_used_up(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card = core.card()
    challenge = await bank.challenge()
    assert await reason_of(other_bank, answer=card.answer(challenge)) == "CHALLENGE_INVALID"
    assert await reason_of(bank, answer=card.answer(challenge)) == "AUTHENTIC"


async def test_expired_and_forged_challenges_are_invalid(core: Core, bank: Caller) -> None:
    card = core.card()
    challenges = core.store.challenges(core.store.active("challenge"))
    issued = challenges.issue(participant="bank-01", issued_at_s=int(time.time()) - 40)
    old = pb.CreateChallengeResponse(
        process_factor=issued.challenge.process_factor,
        original_data=issued.challenge.original_data,
        challenge_token=issued.token,
    )
    assert await reason_of(bank, answer=card.answer(old)) == "CHALLENGE_INVALID"
    fresh = await bank.challenge()
    for token in (fresh.challenge_token.swapcase(), fresh.challenge_token[:-1], "x"):
        forged = card.answer(fresh, challenge_token=token)
        assert await reason_of(bank, answer=forged) == "CHALLENGE_INVALID"
    # A challenge the caller chose: genuine token, other data under the answer.
    chosen = pb.CreateChallengeResponse(
        process_factor=bytes(8), original_data=bytes(8), challenge_token=fresh.challenge_token
    )
    assert await reason_of(bank, answer=card.answer(chosen)) == "NOT_AUTHENTIC"


async def test_unknown_card_is_told_like_a_wrong_answer(core: Core, bank: Caller) -> None:
    card, unknown = core.card(), core.unissued_card()
    chip = card.sign(0)
    wrong_arqc = common_pb2.ChipCryptogram.FromString(chip.SerializeToString())
    wrong_arqc.arqc = broken(chip.arqc)
    answers = [
        await bank.raw("CardAuthenticationService/AuthenticateCard", authentication(**credential))
        for credential in (
            {"answer": unknown.answer(await bank.challenge())},
            {"answer": unknown.answer(await bank.challenge(), identification_code=card.identification_code)},
            {"cryptogram": signed(unknown)},
            {"cryptogram": signed(card, chip=wrong_arqc)},
        )
    ]
    assert len(set(answers)) == 1
    response = pb.AuthenticateCardResponse.FromString(answers[0])
    assert response.reason == pb.CARD_AUTHENTICATION_REASON_NOT_AUTHENTIC
    assert response.arpc == b""


async def test_cryptogram_of_another_chip_or_of_a_refusal_is_not_authentic(core: Core, bank: Caller) -> None:
    card = core.card()
    other = VirtualCard(core.store, card.n, psn="07")
    assert await reason_of(bank, cryptogram=signed(card, chip=other.sign(0))) == "NOT_AUTHENTIC"
    refused = card.sign(0, cvr=bytes.fromhex("03000000"))
    assert await reason_of(bank, cryptogram=signed(card, chip=refused)) == "NOT_AUTHENTIC"
    assert await reason_of(bank, cryptogram=signed(card)) == "AUTHENTIC"


async def test_counter_of_a_cryptogram_is_shared_with_money_operations(core: Core, bank: Caller) -> None:
    card = core.card()
    chip = card.sign(100)
    assert await reason_of(bank, cryptogram=signed(card, 100, chip=chip)) == "AUTHENTIC"
    response = await bank.authorize(purchase(card, 100, chip=chip))
    assert response.response_code == "05"
    used = card.sign(50)
    assert (await bank.authorize(purchase(card, 50, chip=used))).response_code == "00"
    request = authentication(cryptogram=signed(card, 50, chip=used))
    replayed = await bank.authentication.AuthenticateCard(request, timeout=CALL_S)
    assert replayed.reason == pb.CARD_AUTHENTICATION_REASON_ATC_REPLAYED
    assert card.accepts(used, arpc=replayed.arpc, response_code="05")


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
async def test_only_a_proven_chip_hears_its_status(
    core: Core, bank: Caller, status: CardStatus, reason: str
) -> None:
    card = core.card()
    await core.set_status(card, status)
    assert await reason_of(bank, answer=card.answer(await bank.challenge())) == reason
    assert await reason_of(bank, cryptogram=signed(card)) == reason
    right = card.answer(await bank.challenge())
    right.response = broken(right.response)
    assert await reason_of(bank, answer=right) == "NOT_AUTHENTIC"


async def test_loss_report_is_heard_by_the_next_chip(core: Core, bank: Caller) -> None:
    card = core.card()
    assert await reason_of(bank, answer=card.answer(await bank.challenge())) == "AUTHENTIC"
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert await reason_of(core.caller(), answer=card.answer(await bank.challenge())) == "CARD_LOST"
    assert await reason_of(core.caller(), cryptogram=signed(card)) == "CARD_LOST"
