"""A PIN through its life, and what the bank's keys do beside it: a mailer, wrong tries, a script for the chip."""

import time

from onecard.v1 import cryptography_pb2 as pb

from clients.bank import Bank
from clients.demo.residents import IMK, IMK_SMI, MAILER_KEY, Bureau, Resident
from clients.demo.scorecard import Scene, Scorecard, refusal_of
from clients.pin_pad import PinPad
from clients.service_client import OneCardClient

SM4_0 = pb.PIN_BLOCK_FORMAT_SM4_0
NEW_PIN = "846213"


class PinDay:
    """The PIN of one resident.

    Args:
        client: the bank's.
        pad: PIN pad of a terminal in the city.
    """

    def __init__(
        self, scorecard: Scorecard, client: OneCardClient, bureau: Bureau, *, pad: PinPad, holder: Resident
    ) -> None:
        self._scorecard = scorecard
        self._client = client
        self._bank = Bank(client)
        self._bureau = bureau
        self._pad = pad
        self._holder = holder
        self._scene = Scene.PIN

    async def play_pin(self) -> None:
        """Issued, entered, guessed at, blocked, unblocked, changed."""
        self._scene = Scene.PIN
        pan = self._holder.chip.pan
        await self._expect_pin("1234", "57", pb.PIN_REASON_NO_PIN)
        issued = await self._bank.issue_pin(pan, mailer_key=MAILER_KEY, format=SM4_0)
        self._expect("issue", expected="00", got=issued.response_code)
        digits = self._bureau.read_mailer(issued.pin_block, pan=pan)
        await self._expect_pin(digits, "00", pb.PIN_REASON_ACCEPTED)
        wrong = f"{(int(digits) + 1) % 10**6:06d}"
        for _ in range(3):
            await self._expect_pin(wrong, "55", pb.PIN_REASON_WRONG_PIN)
        await self._expect_pin(digits, "75", pb.PIN_REASON_TRIES_EXCEEDED)
        unblocked = await self._bank.unblock_pin(self._holder.by_identity_number)
        self._expect("unblock", expected="00", got=unblocked.response_code)
        changed = await self._bank.change_pin(
            pan, current_pin=self._pad.enter(digits, pan=pan), new_pin=self._pad.enter(NEW_PIN, pan=pan)
        )
        self._expect("change", expected="00", got=changed.response_code)
        await self._expect_pin(digits, "55", pb.PIN_REASON_WRONG_PIN)
        await self._expect_pin(NEW_PIN, "00", pb.PIN_REASON_ACCEPTED)

    async def play_script(self) -> None:
        """The bank checks a cryptogram itself, and sends the chip a command that only this transaction's chip takes."""
        self._scene = Scene.SCRIPT
        chip = self._holder.chip
        cryptogram = chip.sign(amount_minor=0, transaction_date=time.strftime("%y%m%d"))
        request = pb.GenerateIssuerScriptRequest(
            integrity_key=pb.KeyReference(name=IMK_SMI),
            pan=chip.pan,
            psn=chip.psn,
            atc=cryptogram.atc,
            arqc=cryptogram.arqc,
            command=pb.ISSUER_COMMAND_PIN_UNBLOCK,
        )
        script = await self._client.generate_issuer_script(request)
        taken = chip.take_script(script.command, cryptogram=cryptogram)
        self._expect("command", expected="PIN_UNBLOCK", got=taken.name)
        request.integrity_key.name = IMK
        refusal = await refusal_of(self._client.generate_issuer_script(request))
        expected = "FAILED_PRECONDITION KEY_USAGE integrity_key"
        self._expect("another key", expected=expected, got=refusal)
        pin = self._pad.enter(NEW_PIN, pan=chip.pan)
        weaker = pb.TranslatePinRequest(
            pan=chip.pan,
            source=pin,
            target_key=pb.KeyReference(name="zpk-tdes"),
            target_format=pb.PIN_BLOCK_FORMAT_ISO_0,
        )
        refusal = await refusal_of(self._client.translate_pin(weaker))
        expected = "FAILED_PRECONDITION PIN_FORMAT_WEAKER target_format"
        self._expect("a weaker PIN block", expected=expected, got=refusal)

    async def _expect_pin(self, digits: str, code: str, reason: "pb.PinReason.ValueType") -> None:
        pan = self._holder.chip.pan
        answer = await self._bank.verify_pin(pan, self._pad.enter(digits, pan=pan))
        expected, got = (
            (code, pb.PinReason.Name(reason)),
            (answer.response_code, pb.PinReason.Name(answer.reason)),
        )
        self._expect("PIN", expected=expected, got=got)

    def _expect(self, what: str, *, expected: object, got: object) -> None:
        self._scorecard.expect(self._holder.region, self._scene, what, expected=expected, got=got)
