"""A resident who knows the PIN of their card, at a terminal with a PIN pad."""

from onecard.v1 import cryptography_pb2 as pb

from clients.bank import Bank
from clients.chip_card import VirtualChipCard
from clients.demo.residents import MAILER_KEY, Bureau, Resident
from clients.pin_pad import PinPad


class PinHolder:
    """One resident; the PIN stays here.

    Args:
        bank: of the card.
        bureau: reads the PIN mailer.
        pad: of the terminals where the card is used.
    """

    def __init__(self, bank: Bank, bureau: Bureau, *, pad: PinPad, resident: Resident) -> None:
        self.resident = resident
        self._bank = bank
        self._bureau = bureau
        self._pad = pad
        self._digits = ""

    @property
    def chip(self) -> VirtualChipCard:
        return self.resident.chip

    async def get_pin(self) -> str:
        """Lets the bank issue a PIN and reads the mailer; gives the response code.

        Raises:
            OneCardCallError: no answer.
        """
        issued = await self._bank.issue_pin(
            self.chip.pan, mailer_key=MAILER_KEY, format=pb.PIN_BLOCK_FORMAT_SM4_0
        )
        self._digits = self._bureau.read_mailer(issued.pin_block, pan=self.chip.pan)
        return issued.response_code

    def enter(self) -> pb.EncryptedPin:
        """The PIN as it leaves the pad."""
        return self._pad.enter(self._digits, pan=self.chip.pan)

    def mistype(self) -> pb.EncryptedPin:
        """Another PIN as it leaves the pad."""
        return self._pad.enter(f"{(int(self._digits) + 1) % 10**6:06d}", pan=self.chip.pan)
