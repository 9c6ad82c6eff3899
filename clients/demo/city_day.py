"""What happens at the counters and tills of one city, and what the core must answer to each of it."""

import time
from collections.abc import Awaitable, Callable

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import card_authentication_pb2, cards_pb2, common_pb2, identity_pb2

from clients.agency import Agency
from clients.bank import Bank
from clients.chip_card import IssuerNotGenuineError
from clients.demo.callers import Callers
from clients.demo.pin_day import PinDay
from clients.demo.residents import OPENING_MINOR, Resident
from clients.demo.scorecard import Scene, Scorecard, refusal_of
from clients.errors import OneCardCallError
from clients.purpose import MEDICAL_VISIT, Purpose
from clients.terminal import Terminal, verify_answer

PURCHASE_MINOR = 3_680
TOO_MUCH_MINOR = 450_000
LEFT_MINOR = OPENING_MINOR % TOO_MUCH_MINOR
IDENTITY = identity_pb2.IdentityReason
GENUINE = card_authentication_pb2.CardAuthenticationReason
DECISION = pb.DecisionReason


class CityDay:
    """The day of one city.

    Args:
        callers: who asks the core.
        bank: the bank's core system.
        holder: a resident whose card stays in use.
        poor: a resident who holds less than they want to spend.
        loser: a resident who loses their card.
        pins: the PIN of the holder.
    """

    def __init__(
        self,
        scorecard: Scorecard,
        callers: Callers,
        bank: Bank,
        *,
        holder: Resident,
        poor: Resident,
        loser: Resident,
        pins: PinDay,
    ) -> None:
        self._scorecard = scorecard
        self._callers = callers
        self._bank = bank
        self._holder = holder
        self._poor = poor
        self._loser = loser
        self._pins = pins
        self._place = holder.region
        self._agency = Agency(callers.agency, terminal_id=f"A{self._place}")
        self._terminal = Terminal(
            callers.terminals, terminal_id=f"T{self._place}", merchant_id=f"M{self._place}"
        )

    async def play(self) -> None:
        """Plays every scene; one that fails is noted and the day goes on."""
        scenes: dict[Scene, Callable[[], Awaitable[None]]] = {
            Scene.ISSUE: self._issued,
            Scene.CHIP: self._by_chip,
            Scene.CODE: self._by_code,
            Scene.NAME: self._by_name,
            Scene.AUTHENTICATE: self._authenticate,
            Scene.PURCHASE: self._purchase,
            Scene.DECLINE_51: self._decline,
            Scene.REPLAY: self._replay,
            Scene.REUSED_ID: self._reused_id,
            Scene.TAMPERED: self._tampered,
            Scene.CODE_USED: self._code_used,
            Scene.PURPOSE: self._purpose,
            Scene.PIN: self._pins.play_pin,
            Scene.SCRIPT: self._pins.play_script,
            Scene.LOSS: self._loss,
        }
        for scene, play in scenes.items():
            self._scene = scene
            try:
                await play()
            except (OneCardCallError, IssuerNotGenuineError) as error:
                self._scorecard.failed(self._place, scene, error)

    def _expect(self, what: str, *, expected: object, got: object) -> None:
        self._scorecard.expect(self._place, self._scene, what, expected=expected, got=got)

    async def _issued(self) -> None:
        for reference in (self._holder.by_pan, self._holder.by_code, self._holder.by_identity_number):
            status = await self._bank.card_status(reference)
            self._expect("status", expected=common_pb2.CARD_STATUS_NORMAL, got=status.status)
        deposit = await self._bank.deposit(self._holder.chip.pan, amount_minor=1)
        self._expect("deposit", expected="00", got=deposit.response_code)
        self._expect("a deposit tells no balance", expected=0, got=deposit.available_minor)

    async def _by_chip(self) -> None:
        answer = await self._agency.verify_by_chip(self._holder.chip)
        self._expect_identity(answer, IDENTITY.IDENTITY_REASON_VERIFIED)
        self._expect("level", expected=identity_pb2.ASSURANCE_LEVEL_CARD_PRESENT, got=answer.level)

    async def _by_code(self) -> None:
        code = await self._code(identity_pb2.CARD_CODE_USE_INQUIRY)
        answer = await self._agency.verify_by_code(code)
        self._expect_identity(answer, IDENTITY.IDENTITY_REASON_VERIFIED)

    async def _by_name(self) -> None:
        holder, other = self._holder, self._loser
        answer = await self._agency.verify_by_name(name=holder.name, identity_number=holder.identity_number)
        self._expect_identity(answer, IDENTITY.IDENTITY_REASON_VERIFIED)
        self._expect("level", expected=identity_pb2.ASSURANCE_LEVEL_KNOWLEDGE, got=answer.level)
        wrong = await self._agency.verify_by_name(
            name=holder.name + "甲", identity_number=other.identity_number
        )
        self._expect_identity(wrong, IDENTITY.IDENTITY_REASON_MISMATCH)

    async def _authenticate(self) -> None:
        chip = self._holder.chip
        answer = await self._agency.authenticate_chip(chip)
        self._expect_genuine(answer, GENUINE.CARD_AUTHENTICATION_REASON_AUTHENTIC)
        presented = chip.answer(await self._agency.create_challenge())
        await self._agency.authenticate_answer(presented)
        again = await self._agency.authenticate_answer(presented)
        self._expect_genuine(again, GENUINE.CARD_AUTHENTICATION_REASON_CHALLENGE_USED)
        today = time.strftime("%y%m%d")
        by_cryptogram = await self._agency.authenticate_cryptogram(chip, transaction_date=today)
        self._expect_genuine(by_cryptogram, GENUINE.CARD_AUTHENTICATION_REASON_AUTHENTIC)
        # Another card's chip under this card's code: a copied label on a chip without its keys.
        forged = self._loser.chip.answer(await self._agency.create_challenge())
        forged.identification_code = chip.identification_code
        answer = await self._agency.authenticate_answer(forged)
        self._expect_genuine(answer, GENUINE.CARD_AUTHENTICATION_REASON_NOT_AUTHENTIC)

    async def _purchase(self) -> None:
        answer = await self._terminal.purchase(self._holder.chip, amount_minor=PURCHASE_MINOR)
        self._expect("purchase", expected="00", got=answer.response_code)
        self._expect("ARPC checked by the chip", expected=8, got=len(answer.arpc))
        self._expect("available", expected=OPENING_MINOR + 1 - PURCHASE_MINOR, got=answer.available_minor)

    async def _decline(self) -> None:
        """Spends until the money of the card does not suffice: ``LEFT_MINOR`` of it remains."""
        available = OPENING_MINOR
        while available >= TOO_MUCH_MINOR:
            answer = await self._terminal.purchase(self._poor.chip, amount_minor=TOO_MUCH_MINOR)
            self._expect("purchase", expected="00", got=answer.response_code)
            if answer.response_code != "00":
                return
            available -= TOO_MUCH_MINOR
        answer = await self._terminal.purchase(self._poor.chip, amount_minor=TOO_MUCH_MINOR)
        self._expect_decision(answer, "51", DECISION.DECISION_REASON_INSUFFICIENT_FUNDS)
        self._expect("available", expected=LEFT_MINOR, got=answer.available_minor)

    async def _replay(self) -> None:
        request = self._terminal.prepare_purchase(self._holder.chip, amount_minor=PURCHASE_MINOR)
        first = await self._terminal.submit_raw(request)
        verify_answer(self._holder.chip, request, pb.AuthorizeResponse.FromString(first))
        for _ in range(3):
            again = await self._terminal.submit_raw(request)
            self._expect("bytes of the answer", expected=first.hex(), got=again.hex())
        retold = await self._terminal.purchase(self._holder.chip, amount_minor=1)
        spent = 2 * PURCHASE_MINOR + 1
        self._expect("charged once", expected=OPENING_MINOR + 1 - spent, got=retold.available_minor)

    async def _reused_id(self) -> None:
        request = self._terminal.prepare_purchase(self._holder.chip, amount_minor=PURCHASE_MINOR)
        await self._terminal.submit(request)
        request.amount_minor += 1
        self._expect(
            "changed amount",
            expected="ALREADY_EXISTS REQUEST_ID_REUSED amount_minor",
            got=await refusal_of(self._terminal.submit(request)),
        )

    async def _tampered(self) -> None:
        request = self._terminal.prepare_purchase(self._holder.chip, amount_minor=PURCHASE_MINOR)
        request.chip.arqc = bytes([request.chip.arqc[0] ^ 1]) + request.chip.arqc[1:]
        answer = await self._terminal.submit(request)
        self._expect_decision(answer, "05", DECISION.DECISION_REASON_CRYPTOGRAM_INVALID)
        raised = self._terminal.prepare_purchase(self._holder.chip, amount_minor=PURCHASE_MINOR)
        raised.amount_minor *= 10
        answer = await self._terminal.submit(raised)
        self._expect_decision(answer, "05", DECISION.DECISION_REASON_CRYPTOGRAM_INVALID)
        self._expect("nothing told to a chip that is not proven", expected=0, got=answer.available_minor)

    async def _code_used(self) -> None:
        code = await self._code(identity_pb2.CARD_CODE_USE_OTHER)
        self._expect_identity(await self._agency.verify_by_code(code), IDENTITY.IDENTITY_REASON_VERIFIED)
        again = await self._agency.verify_by_code(code)
        self._expect_identity(again, IDENTITY.IDENTITY_REASON_CREDENTIAL_USED)

    async def _purpose(self) -> None:
        code = await self._code(identity_pb2.CARD_CODE_USE_PAYMENT)
        answer = await self._agency.verify_by_code(code)
        self._expect_identity(answer, IDENTITY.IDENTITY_REASON_CODE_USE_NOT_ALLOWED)
        expected = {
            MEDICAL_VISIT: "PERMISSION_DENIED CATALOGUE_ITEM_NOT_GRANTED catalogue_item",
            Purpose("identity.counter", 99): "NOT_FOUND CATALOGUE_ITEM_UNKNOWN catalogue_item",
        }
        holder = self._holder
        for purpose, refusal in expected.items():
            agency = Agency(self._callers.agency, purpose=purpose)
            asked = agency.verify_by_name(name=holder.name, identity_number=holder.identity_number)
            self._expect(purpose.catalogue_item, expected=refusal, got=await refusal_of(asked))
        deposit = Bank(self._callers.terminals).deposit(holder.chip.pan, amount_minor=1)
        self._expect(
            "a terminal operator's deposit",
            expected="PERMISSION_DENIED RPC_CLASS_NOT_GRANTED",
            got=await refusal_of(deposit),
        )

    async def _loss(self) -> None:
        """From the report on, every credential of the card refuses; a code issued before it too."""
        loser = self._loser
        code = await self._code(identity_pb2.CARD_CODE_USE_INQUIRY, of=loser)
        report = await self._bank.report_loss(loser.by_pan)
        self._expect("report", expected=common_pb2.CARD_STATUS_LOST, got=report.status)
        lost = IDENTITY.IDENTITY_REASON_CARD_LOST
        self._expect_identity(await self._agency.verify_by_chip(loser.chip), lost)
        self._expect_identity(await self._agency.verify_by_code(code), lost)
        stated = await self._agency.verify_by_name(name=loser.name, identity_number=loser.identity_number)
        self._expect_identity(stated, lost)
        answer = await self._terminal.purchase(loser.chip, amount_minor=PURCHASE_MINOR)
        self._expect_decision(answer, "41", DECISION.DECISION_REASON_CARD_LOST)
        genuine = await self._agency.authenticate_chip(loser.chip)
        self._expect_genuine(genuine, GENUINE.CARD_AUTHENTICATION_REASON_CARD_LOST)
        self._expect(
            "a new code",
            expected="FAILED_PRECONDITION CARD_NOT_USABLE card",
            got=await refusal_of(self._code(identity_pb2.CARD_CODE_USE_INQUIRY, of=loser)),
        )
        await self._found_again()

    async def _found_again(self) -> None:
        loser = self._loser
        lifted = await self._bank.lift_loss(loser.by_identity_number)
        self._expect("lift", expected=common_pb2.CARD_STATUS_NORMAL, got=lifted.status)
        answer = await self._terminal.purchase(loser.chip, amount_minor=PURCHASE_MINOR)
        self._expect_decision(answer, "00", DECISION.DECISION_REASON_APPROVED)
        report = await self._bank.report_loss(loser.by_code, kind=cards_pb2.LOSS_KIND_TEMPORARY)
        self._expect("report", expected=common_pb2.CARD_STATUS_TEMPORARILY_LOST, got=report.status)

    async def _code(self, use: "identity_pb2.CardCodeUse.ValueType", *, of: Resident | None = None) -> str:
        issued = await self._bank.card_code((of or self._holder).by_pan, use=use)
        return issued.card_code

    def _expect_identity(
        self,
        answer: identity_pb2.VerifyIdentityResponse,
        reason: "identity_pb2.IdentityReason.ValueType",
    ) -> None:
        self._expect("identity", expected=IDENTITY.Name(reason), got=IDENTITY.Name(answer.reason))
        verified = reason == IDENTITY.IDENTITY_REASON_VERIFIED
        self._expect("verified", expected=verified, got=answer.verified)

    def _expect_genuine(
        self,
        answer: card_authentication_pb2.AuthenticateCardResponse,
        reason: "card_authentication_pb2.CardAuthenticationReason.ValueType",
    ) -> None:
        self._expect("genuine", expected=GENUINE.Name(reason), got=GENUINE.Name(answer.reason))
        authentic = reason == GENUINE.CARD_AUTHENTICATION_REASON_AUTHENTIC
        self._expect("authenticated", expected=authentic, got=answer.authenticated)

    def _expect_decision(
        self, answer: pb.AuthorizeResponse, code: str, reason: "pb.DecisionReason.ValueType"
    ) -> None:
        expected, got = (code, DECISION.Name(reason)), (answer.response_code, DECISION.Name(answer.reason))
        self._expect("decision", expected=expected, got=got)
