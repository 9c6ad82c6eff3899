"""Synthetic residents of the eleven cities, issued over gRPC, each with a chip in its pocket."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onecard.v1 import common_pb2

from clients.bank import Bank, CardApplication
from clients.chip_card import VirtualChipCard
from clients.pin_pad import PinPad
from crypto.diversification import card_key_usage, udk_factor_a
from crypto.dukpt_aes import derive_initial_key
from crypto.identification_code import IdentificationCodes
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import PinBlockFormat, decrypt_pin_block
from server.cards.synthetic import synthetic_card, synthetic_region

OPENING_MINOR = 10_000_000
IMK, SS_MASTER = "imk-ac-sm4", "ss-auth-sm4"
IMK_SMI, IMK_SMC = "imk-smi-sm4", "imk-smc-sm4"
MAILER_KEY, BDK = "zpk-sm4", "bdk-sm4"


@dataclass(frozen=True)
class Resident:
    """A holder with their card. Personal data stay out of the repr."""

    region: str
    name: str = field(repr=False)
    identity_number: str = field(repr=False)
    chip: VirtualChipCard

    @property
    def by_pan(self) -> common_pb2.CardReference:
        return common_pb2.CardReference(pan=self.chip.pan)

    @property
    def by_code(self) -> common_pb2.CardReference:
        return common_pb2.CardReference(identification_code=self.chip.identification_code)

    @property
    def by_identity_number(self) -> common_pb2.CardReference:
        return common_pb2.CardReference(identity_number=self.identity_number)


class Bureau:
    """The personalisation bureau: writes chips under the keys of the demonstration's own core."""

    def __init__(self, data_dir: Path) -> None:
        self._store = SoftwareKeyStore.open(data_dir / "keys")
        self._codes: IdentificationCodes = self._store.identification_codes(
            self._store.active("identification-code")
        )

    def produce(self, number: int) -> tuple[CardApplication, Resident]:
        """Card ``number`` and what the bank needs to put it into the core."""
        card = synthetic_card(number, self._codes)
        keys = self._store.personalise(
            imk=self._store.active(IMK),
            ss_master=self._store.active(SS_MASTER),
            pan=card.pan,
            psn=card.psn,
            region=card.issuing_region,
            atr_historical_bytes=card.atr_historical_bytes,
        )
        application = CardApplication(
            name=card.name,
            identity_number=card.identity_number,
            issuing_region=card.issuing_region,
            card_number=card.card_number,
            identification_code=card.identification_code,
            atr_historical_bytes=card.atr_historical_bytes,
            pan=card.pan,
            psn=card.psn,
            expires_on=f"{card.expires_on:%Y%m%d}",
            cipher=common_pb2.CARD_CIPHER_SM4,
            transaction_amount_max_minor=card.transaction_amount_max_minor,
            day_amount_max_minor=card.day_amount_max_minor,
        )
        chip = VirtualChipCard(
            keys=keys,
            pan=card.pan,
            psn=card.psn,
            identification_code=card.identification_code,
            script_keys=(
                self._card_key(IMK_SMI, KeyUsage.IMK_SMI, pan=card.pan, psn=card.psn),
                self._card_key(IMK_SMC, KeyUsage.IMK_SMC, pan=card.pan, psn=card.psn),
            ),
        )
        return application, Resident(card.issuing_region, card.name, card.identity_number, chip)

    def pin_pad(self, number: int) -> PinPad:
        """PIN pad ``number``, loaded with its initial key."""
        ksn = number.to_bytes(8) + bytes(4)
        bdk = self._store.lend(self._store.active(BDK))
        return PinPad(derive_initial_key(bdk, ksn=ksn), ksn=ksn, bdk_name=BDK)

    def read_mailer(self, block: bytes, *, pan: str) -> str:
        """What the holder reads in the PIN mailer, as its printer opens the block."""
        key = self._store.lend(self._store.active(MAILER_KEY))
        return decrypt_pin_block(key, block, pan=pan, format=PinBlockFormat.SM4_0).digits

    def _card_key(self, name: str, usage: KeyUsage, *, pan: str, psn: str) -> Key:
        value = self._store.encrypt_under_master(self._store.active(name), udk_factor_a(pan, psn))
        return Key(Cipher.SM4, card_key_usage(usage), value)


async def issue(bank: Bank, bureau: Bureau, numbers: Sequence[int]) -> list[Resident]:
    """Issues cards and pays ``OPENING_MINOR`` onto each; gives them in order of ``numbers``.

    Raises:
        OneCardCallError: a card was refused.
    """

    async def one(number: int) -> Resident:
        application, resident = bureau.produce(number)
        await bank.issue_card(application)
        await bank.deposit(resident.chip.pan, amount_minor=OPENING_MINOR)
        return resident

    return list(await asyncio.gather(*(one(number) for number in numbers)))


def numbers_of(region: str, *, count: int) -> list[int]:
    """The first ``count`` synthetic cards of a city."""
    numbers: list[int] = []
    number = 0
    while len(numbers) < count:
        if synthetic_region(number) == region:
            numbers.append(number)
        number += 1
    return numbers
