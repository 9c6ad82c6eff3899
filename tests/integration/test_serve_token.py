"""``onecard serve`` on a PKCS#11 token: cards, PINs and rotations under its keys; slow, lost and back again.

Each test runs in both modes, on one data directory: batch first, strict after a restart. Nothing asserts a duration.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import grpc
import pytest
import pytest_asyncio
from core_under_test import (
    CALL_S,
    EVERYTHING,
    Caller,
    Refusal,
    authentication,
    changed,
    deposit,
    loss_lift,
    loss_report,
    name_and_number,
    open_directory,
    purchase,
    refusal_of,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from key_operators import Ceremony, add_key_participants
from onecard.v1 import card_authentication_pb2, keys_pb2
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import ISO_0, ISO_4, RIGHT, SM4_0, WRONG, key, pin_issue, stateless_requests, zpk
from token_site import SOFTHSM, USER_PIN, WRONG_PIN, TokenBureau, TokenCore, TokenPinPad, TokenSite
from virtual_card import VirtualCard

from crypto.key_store.token_connection import CONTACT_MAX_S
from server.cards.directory import AC_KEY_NAMES, CardCipher
from server.settings import socket_dsn

# As many connections as make sure that both workers answer.
CONNECTIONS = 6
REFRESHED_S = 1.6
BACK_MAX_S = 20.0
# The layout whose zone key is of the card's cipher.
LAYOUTS = {CardCipher.SM4: SM4_0, CardCipher.TDES: ISO_0, CardCipher.AES: ISO_4}


@pytest.fixture(scope="module")
def site() -> Iterator[TokenSite]:
    if not SOFTHSM.exists():
        pytest.fail(f"{SOFTHSM} is missing: run `make packages`")
    root = open_directory("onecard-token-")
    yield TokenSite(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", params=["batch", "strict"])
async def token_core(site: TokenSite, request: pytest.FixtureRequest) -> AsyncIterator[TokenCore]:
    instance = site.serve("--pkcs11-mode", request.param)
    facts = await asyncio.to_thread(instance.until_ready)
    bureau = TokenBureau(site)
    core = TokenCore(instance, facts, dsn=socket_dsn(Path(facts["socket_dir"])), bureau=bureau)
    core.database = await asyncpg.create_pool(core.dsn, min_size=1, max_size=4)
    await core.add_participant("bank-01", EVERYTHING)
    await add_key_participants(core)
    yield core
    await core.close()
    bureau.close()
    assert await asyncio.to_thread(instance.stop) == 0
    assert USER_PIN not in instance.errors()


@pytest_asyncio.fixture(scope="module")
async def banks(token_core: TokenCore) -> list[Caller]:
    return [token_core.caller() for _ in range(CONNECTIONS)]


@pytest_asyncio.fixture(scope="module")
async def cards(token_core: TokenCore, banks: list[Caller]) -> dict[CardCipher, VirtualCard]:
    return {cipher: await token_core.issued_card(cipher, banks[0]) for cipher in CardCipher}


def is_key_store_unavailable(refusal: Refusal) -> bool:
    assert refusal.retry_delay_ms > 0
    return (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "KEY_STORE_UNAVAILABLE")


async def answered(call: Callable[..., Any], request: Any) -> Any:
    """The answer as soon as the token is back; fails on any other error, or when it does not come back."""
    deadline_s = time.monotonic() + BACK_MAX_S
    while True:
        try:
            return await call(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            if not is_key_store_unavailable(Refusal.of(error)) or time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(0.1)


async def pay(bank: Caller, card: VirtualCard) -> None:
    """A purchase that is approved, with an answer that the chip takes."""
    request = purchase(card)
    answer = await bank.authorize(request)
    assert answer.response_code == "00"
    assert card.accepts(request.chip, arpc=answer.arpc, response_code="00")


def chip_answer(card: VirtualCard, challenge: Any) -> card_authentication_pb2.AuthenticateCardRequest:
    return authentication(answer=card.answer(challenge))


async def issue_pin(core: TokenCore, bank: Caller, card: VirtualCard, layout: int) -> str:
    request = pin_issue(card, key=key(zpk(layout)), format=layout)
    issued = await bank.cryptography.IssuePin(request, timeout=CALL_S)
    return TokenPinPad(core.store).opened(issued.pin_block, card.pan, layout=layout)


@pytest.mark.parametrize("cipher", list(CardCipher), ids=lambda cipher: cipher.name)
async def test_cards_and_pins_of_every_cipher_are_served(
    token_core: TokenCore, banks: list[Caller], cards: dict[CardCipher, VirtualCard], cipher: CardCipher
) -> None:
    card, layout, pad = cards[cipher], LAYOUTS[cipher], TokenPinPad(token_core.store)
    for bank in banks:
        await pay(bank, card)
    bank = banks[0]
    forged = purchase(card)
    forged.chip.arqc = bytes(8)
    assert (await bank.authorize(forged)).response_code == "05"
    request = chip_answer(card, await bank.challenge())
    assert (await bank.authentication.AuthenticateCard(request, timeout=CALL_S)).authenticated
    wrong_answer = chip_answer(card, await bank.challenge())
    wrong_answer.answer.response = bytes(8)
    assert not (await bank.authentication.AuthenticateCard(wrong_answer, timeout=CALL_S)).authenticated

    stub = bank.cryptography
    mailed = await issue_pin(token_core, bank, card, layout)
    wrong = pad.verification(card, pin=pad.pin(WRONG, card.pan, layout=layout))
    assert (await stub.VerifyPin(wrong, timeout=CALL_S)).response_code == "55"
    right = pad.verification(card, pin=pad.pin(mailed, card.pan, layout=layout))
    assert (await stub.VerifyPin(right, timeout=CALL_S)).response_code == "00"
    translation = pb.TranslatePinRequest(
        pan=card.pan,
        source=pad.pin(RIGHT, card.pan, layout=layout),
        target_key=key(zpk(ISO_4)),
        target_format=ISO_4,
    )
    translated = await stub.TranslatePin(translation, timeout=CALL_S)
    assert pad.opened(translated.pin_block, card.pan, layout=ISO_4) == RIGHT


async def test_messages_are_protected_by_keys_that_the_token_only_wraps(banks: list[Caller]) -> None:
    message = {"key": key("mac-sm4"), "message": b"0200 message"}
    generated = await banks[0].cryptography.GenerateMac(
        pb.GenerateMacRequest(mac_bytes=8, **message), timeout=CALL_S
    )
    for bank in banks:
        verify = bank.cryptography.VerifyMac
        assert (await verify(pb.VerifyMacRequest(mac=generated.mac, **message), timeout=CALL_S)).verified
        assert not (await verify(pb.VerifyMacRequest(mac=bytes(8), **message), timeout=CALL_S)).verified


@pytest.mark.parametrize("cipher", [CardCipher.AES, CardCipher.TDES], ids=lambda cipher: cipher.name)
async def test_both_workers_take_over_a_rotation_inside_the_token(
    token_core: TokenCore, banks: list[Caller], cards: dict[CardCipher, VirtualCard], cipher: CardCipher
) -> None:
    ceremony, name = Ceremony(token_core), AC_KEY_NAMES[cipher]
    before = max(info.version for info in await ceremony.one.keys(name))
    rotated = (await ceremony.done(rotate=keys_pb2.RotateKey(name=name))).key
    assert rotated.version == before + 1
    await asyncio.sleep(REFRESHED_S)
    new = [await token_core.issued_card(cipher, bank) for bank in banks]
    versions = await token_core.database.fetch(
        "SELECT DISTINCT ac_key_version FROM cards WHERE card_id = ANY($1)",
        [await token_core.card_id(card) for card in new],
    )
    assert [row["ac_key_version"] for row in versions] == [rotated.version]
    for bank, card in zip(banks, reversed(new), strict=True):
        await pay(bank, cards[cipher])
        await pay(bank, card)
    listed = {info.version: info for info in await ceremony.one.keys(name)}
    assert listed[before].state == keys_pb2.KEY_LIFE_STATE_VERIFY_ONLY
    assert (listed[rotated.version].state, listed[rotated.version].kcv) == (
        keys_pb2.KEY_LIFE_STATE_ACTIVE,
        rotated.kcv,
    )


class Waiting(NamedTuple):
    """A call that needs the token, and whether its answer is the right one."""

    call: Callable[..., Any]
    request: Any
    is_right: Callable[[Any], bool]


async def calls_that_need_the_token(
    core: TokenCore, banks: list[Caller], cards: dict[CardCipher, VirtualCard]
) -> list[Waiting]:
    """Every kind of them, under keys in the token and in memory, at both workers."""
    pad, waiting = TokenPinPad(core.store), []

    def right(answer: Any) -> bool:
        return answer.response_code == "00"

    for cipher, card in cards.items():
        layout = LAYOUTS[cipher]
        mailed = await issue_pin(core, banks[0], card, layout)
        for bank in banks:
            request = purchase(card)
            waiting.append(
                Waiting(
                    bank.authorization.Authorize,
                    request,
                    lambda answer, chip=request.chip, card=card: card.accepts(
                        chip, arpc=answer.arpc, response_code=answer.response_code
                    ),
                )
            )
        # First the wrong one: the right one after it puts the tries back.
        for digits, is_right in ((WRONG, lambda answer: answer.tries_left == 2), (mailed, right)):
            pin = pad.pin(digits, card.pan, layout=layout)
            waiting.append(
                Waiting(banks[0].cryptography.VerifyPin, pad.verification(card, pin=pin), is_right)
            )
        issue = pin_issue(card, key=key(zpk(layout)), format=layout)
        waiting.append(Waiting(banks[1].cryptography.IssuePin, issue, right))
        cryptogram = card_authentication_pb2.CardCryptogram(pan=card.pan, chip=card.sign(0))
        for request in (authentication(cryptogram=cryptogram), chip_answer(card, await banks[0].challenge())):
            call = banks[0].authentication.AuthenticateCard
            waiting.append(Waiting(call, request, lambda answer: answer.authenticated))
    return waiting


async def calls_that_go_on(core: TokenCore, bank: Caller, card: VirtualCard, bearer: VirtualCard) -> None:
    """What needs no key of a card: all of it, while the token is not there."""
    await asyncio.gather(bank.challenge(), bank.card_code(card))
    assert (await bank.authorize(deposit(card))).response_code == "00"
    assert (await bank.verify(name_and_number=name_and_number(card))).verified
    await bank.cards.ReportLoss(loss_report(bearer), timeout=CALL_S)
    assert (await bank.authorize(deposit(bearer))).response_code == "41"
    await bank.cards.LiftLoss(loss_lift(bearer), timeout=CALL_S)
    assert await health_of(bank) == health_pb2.HealthCheckResponse.SERVING


async def health_of(bank: Caller) -> int:
    stub = health_pb2_grpc.HealthStub(bank.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)).status


async def test_without_the_token_card_and_pin_calls_wait_and_the_rest_goes_on(
    token_core: TokenCore, site: TokenSite, banks: list[Caller], cards: dict[CardCipher, VirtualCard]
) -> None:
    bearer = await token_core.issued_card(CardCipher.SM4, banks[0])
    waiting = await calls_that_need_the_token(token_core, banks, cards)
    counters = {cipher: await token_core.counters(card) for cipher, card in cards.items()}
    with site.without_token():
        # Keys in memory are used for as long as this after the token's last answer.
        await asyncio.sleep(CONTACT_MAX_S + 0.1)
        refusals = asyncio.gather(
            *(refusal_of(call(request, timeout=CALL_S)) for call, request, _ in waiting),
            *(stateless_refusal(bank, name) for bank in banks for name in stateless_requests("")),
        )
        for bank in banks:
            await calls_that_go_on(token_core, bank, cards[CardCipher.AES], bearer)
        assert all(is_key_store_unavailable(refusal) for refusal in await refusals)
        for bank in banks:
            await calls_that_go_on(token_core, bank, cards[CardCipher.AES], bearer)
    assert {cipher: await token_core.counters(card) for cipher, card in cards.items()} == counters
    for _, request, _ in waiting:
        assert await token_core.stored(request.request_id) == 0

    pids = token_core.instance.facts()["worker_pids"]
    for call, request, is_right in waiting:
        answer = await answered(call, request)
        assert is_right(answer), type(request).__name__
    assert token_core.instance.facts()["worker_pids"] == pids == token_core.facts["worker_pids"]
    for cipher, card in cards.items():
        assert await token_core.counters(card) == (card.atc, 0), cipher


async def stateless_refusal(bank: Caller, name: str) -> Refusal:
    request = stateless_requests("6217000010012345677")[name]
    if name == "VerifyArqc":
        # Under a key in the token; the others are under keys in memory.
        request = changed(request, key=key("imk-ac-aes"))
    return await refusal_of(getattr(bank.cryptography, name)(request, timeout=CALL_S))


async def test_a_slow_token_holds_up_only_what_needs_it(
    token_core: TokenCore, site: TokenSite, banks: list[Caller], cards: dict[CardCipher, VirtualCard]
) -> None:
    held_up = [purchase(cards[cipher]) for cipher in (CardCipher.AES, CardCipher.TDES) * 2]
    bank, other = banks[0], cards[CardCipher.SM4]
    said_before = token_core.instance.errors()
    # On one connection, and so at one worker, and more of them than it has lanes.
    with site.slow_token():
        waiting = []
        for request in held_up[:3]:
            waiting.append(asyncio.ensure_future(refusal_of(bank.authorize(request))))
            await asyncio.sleep(0.05)
        await calls_that_go_on(token_core, bank, other, cards[CardCipher.AES])
        assert not any(call.done() for call in waiting)
        assert all(is_key_store_unavailable(refusal) for refusal in await asyncio.gather(*waiting))
        await calls_that_go_on(token_core, bank, other, cards[CardCipher.AES])
        # Given up: what comes now does not wait for the token any more, nor does the token hear of it.
        for _ in range(20):
            assert is_key_store_unavailable(await refusal_of(bank.authorize(held_up[3])))
    for request in held_up:
        assert await token_core.stored(request.request_id) == 0
        answer = await answered(bank.authorization.Authorize, request)
        assert answer.response_code == "00"
    said = token_core.instance.errors().removeprefix(said_before)
    # Once by each worker at most, however many calls have failed.
    for line in ("is lost (no answer in time)", "key store: KeyStoreUnavailableError", "answers again"):
        assert 1 <= said.count(line) <= 2, line


@pytest.mark.parametrize("wrong", ["pin", "module", "token", "mode"])
def test_a_token_that_cannot_be_used_stops_the_start_in_one_line(site: TokenSite, wrong: str) -> None:
    data_dir = site.root / "refused"
    data_dir.mkdir(exist_ok=True)
    data_dir.chmod(0o711)
    pin_file = site.root / f"pin-{wrong}"
    pin_file.touch(mode=0o600)
    pin_file.write_text(WRONG_PIN if wrong == "pin" else USER_PIN)
    flags, said = {
        "pin": ([], f"token 'site' refuses the PIN in {pin_file}"),
        "module": (["--pkcs11-module", "/nowhere.so"], "cannot load the PKCS#11 module /nowhere.so"),
        "token": (["--pkcs11-token-label", "other"], f"{SOFTHSM} has no token 'other'"),
        "mode": ([], f"{pin_file} is open to others"),
    }[wrong]
    if wrong == "mode":
        pin_file.chmod(0o640)
    instance = site.serve("--pkcs11-pin-file", str(pin_file), *flags, data_dir=data_dir)
    try:
        assert instance.exit_code() == 2, instance.errors()
    finally:
        instance.close()
    (line,) = [line for line in instance.errors().splitlines() if not line.startswith("{")]
    assert line.startswith("onecard: key store")
    assert said in line
    assert instance.output() == ""
    assert not [pin for pin in (USER_PIN, WRONG_PIN) if pin in instance.errors()]
