"""What names or proves a card, through the typed clients: codes of a phone, cards on file, PINs and codes of a pad."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from core_under_test import OPENING_BALANCE_MINOR, Core
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2, cryptography_pb2, identity_pb2
from rules_in_force import rule

from clients.bank import Bank
from clients.channel import ClientCredentials, OneCardChannel
from clients.errors import AlreadyExistsError, NotFoundError
from clients.pin_pad import PinPad
from clients.service_client import OneCardClient
from clients.terminal import Terminal
from crypto import dukpt_aes

PAYMENT = identity_pb2.CARD_CODE_USE_PAYMENT
SM4_0 = cryptography_pb2.PIN_BLOCK_FORMAT_SM4_0
BDK = "bdk-sm4"
KSN = bytes.fromhex("99887766554433ff00000000")


@pytest_asyncio.fixture
async def client(core: Core) -> AsyncIterator[OneCardClient]:
    credentials = ClientCredentials.of_participant(core.data_dir, "bank-01")
    core.caller()
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            OneCardChannel(f"127.0.0.1:{core.facts['port']}", credentials)
        )
        yield OneCardClient(channel)


async def test_code_on_the_phone_pays_once_and_its_reversal_gives_back(
    core: Core, client: OneCardClient
) -> None:
    card, bank = core.card(), Bank(client, counter_id="CLIENTS1")
    till = Terminal(client, terminal_id="CLIENTS2", merchant_id="M1")
    code = (await bank.card_code(common_pb2.CardReference(pan=card.pan), use=PAYMENT)).card_code
    paid = await till.pay_by_code(code, amount_minor=900)
    assert (paid.response_code, paid.available_minor) == ("00", OPENING_BALANCE_MINOR - 900)
    again = await till.pay_by_code(code, amount_minor=900)
    assert again.reason == pb.DECISION_REASON_CARD_CODE_USED
    lost = till.requests.by_code(
        pb.OPERATION_TYPE_PURCHASE,
        (await bank.card_code(common_pb2.CardReference(pan=card.pan), use=PAYMENT)).card_code,
        amount_minor=50,
    )
    await till.submit(lost)
    undone = await till.submit(till.requests.reversal_of(lost))
    assert (undone.response_code, undone.approved_minor) == ("00", 50)
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 900


async def test_card_on_file_is_charged_until_its_token_ends(core: Core, client: OneCardClient) -> None:
    card, bank = core.card(), Bank(client, counter_id="CLIENTS3")
    shop = Terminal(client, terminal_id="CLIENTS4", merchant_id="M1")
    token = f"subscription-{card.facts.card_number}"
    await bank.register_card_token(common_pb2.CardReference(pan=card.pan), card_token=token)
    with pytest.raises(AlreadyExistsError) as taken:
        await bank.register_card_token(common_pb2.CardReference(pan=card.pan), card_token=token)
    assert taken.value.reason == "CARD_TOKEN_TAKEN"
    charged = await shop.charge_token(token, amount_minor=2_500)
    assert (charged.response_code, charged.available_minor) == ("00", 0)
    await bank.revoke_card_token(token)
    ended = await shop.charge_token(token, amount_minor=2_500)
    assert ended.reason == pb.DECISION_REASON_CARD_TOKEN_UNKNOWN
    with pytest.raises(NotFoundError):
        await bank.revoke_card_token(token)
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 2_500


async def test_pad_encrypts_the_pin_and_seals_the_message(core: Core, client: OneCardClient) -> None:
    card, bank = core.card(), Bank(client, counter_id="CLIENTS5")
    initial_key = dukpt_aes.derive_initial_key(core.store.lend(core.store.active(BDK)), ksn=KSN)
    pad = PinPad(initial_key, ksn=KSN, bdk_name=BDK)
    issued = await bank.issue_pin(card.pan, mailer_key="zpk-sm4", format=SM4_0)
    assert issued.response_code == "00"
    machine = Terminal(client, terminal_id="CLIENTS6")
    request = machine.requests.without_chip(pb.OPERATION_TYPE_CASH_WITHDRAWAL, card.pan, amount_minor=10_000)
    request.chip.CopyFrom(card.sign(10_000))
    request.pin.CopyFrom(pad.enter("000000000000", pan=card.pan))
    async with rule(core, "terminal", "bank-01/CLIENTS6", mac_key=BDK):
        assert (await machine.submit(request)).reason == pb.DECISION_REASON_MESSAGE_MAC_INVALID
        request.request_id = f"{request.request_id[:-1]}{'0' if request.request_id[-1] != '0' else '1'}"
        request.stan += 1
        pad.put_mac(request)
        assert (await machine.submit(request)).reason == pb.DECISION_REASON_WRONG_PIN
