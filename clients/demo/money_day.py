"""What a city's people do with their money: buses, hospitals, hotels, shops, and what goes wrong at their tills."""

from collections.abc import Awaitable, Callable

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import identity_pb2

from clients.bank import Bank
from clients.benefit_office import BENEFIT_WALLET, MEDICAL_WALLET, BenefitOffice
from clients.chip_card import IssuerNotGenuineError
from clients.demo.callers import Callers
from clients.demo.pin_holder import PinHolder
from clients.demo.province_rules import BUS, HOSPITAL, HOTEL, PETROL, SUPERMARKET
from clients.demo.residents import OPENING_MINOR, Resident
from clients.demo.scorecard import Scene, Scorecard, refusal_of
from clients.errors import OneCardCallError
from clients.holds import Holds
from clients.look_up import LookUp
from clients.money_requests import CardCode, CardToken
from clients.reversals import Reversals
from clients.terminal import Terminal

REASON = pb.DecisionReason


class MoneyDay:
    """The money of one city.

    Args:
        guest: a resident whose money nobody else touches; each scene tells what is left of it.
        driver: a resident with ``driver_minor`` left, who fills up.
        neighbour: a resident of another city, who gets a transfer from the guest and nothing else today.
    """

    def __init__(
        self,
        scorecard: Scorecard,
        callers: Callers,
        *,
        guest: PinHolder,
        driver: Resident,
        driver_minor: int,
        neighbour: Resident,
    ) -> None:
        self._scorecard = scorecard
        self._callers = callers
        self._guest = guest
        self._driver = driver
        self._driver_minor = driver_minor
        self._neighbour = neighbour
        self._place = guest.resident.region
        self._left_minor = OPENING_MINOR
        self._scene = Scene.TAP
        self._shop = self._terminal("S", SUPERMARKET)

    async def play(self) -> None:
        """Plays every scene; one that fails is noted and the day goes on."""
        scenes: dict[Scene, Callable[[], Awaitable[None]]] = {
            Scene.CASH: self._cash,
            Scene.TAP: self._taps,
            Scene.MEDICAL: self._medical,
            Scene.BENEFIT: self._benefit,
            Scene.HOTEL: self._hotel,
            Scene.REFUND: self._refund,
            Scene.REVERSAL: self._reversal,
            Scene.REVERSED_FIRST: self._reversed_first,
            Scene.PETROL: self._petrol,
            Scene.CODE_PAYMENT: self._code_payment,
            Scene.CARD_ON_FILE: self._card_on_file,
            Scene.TRANSFER: self._transfer,
            Scene.LOOK_UP: self._look_up,
        }
        for scene, play in scenes.items():
            self._scene = scene
            try:
                await play()
            except (OneCardCallError, IssuerNotGenuineError) as error:
                self._scorecard.failed(self._place, scene, error)

    async def _taps(self) -> None:
        gate = self._terminal("B", BUS)
        for fare_minor in (200, 200, 150):
            self._expect_approved(await gate.tap(self._guest.chip, amount_minor=fare_minor), fare_minor)
            self._left_minor -= fare_minor
        too_dear = await gate.tap(self._guest.chip, amount_minor=30_001)
        self._expect_reason(too_dear, "61", REASON.DECISION_REASON_TRANSACTION_AMOUNT_LIMIT)
        await self._expect_left()

    async def _medical(self) -> None:
        """Money of the medical wallet is for hospitals and pharmacies, whoever asks."""
        chip, hospital = self._guest.chip, self._terminal("H", HOSPITAL)
        office = BenefitOffice(self._callers.fund, counter_id=f"O{self._place}")
        paid_in = await office.credit(chip.pan, amount_minor=50_000, wallet=MEDICAL_WALLET)
        self._expect_approved(paid_in, 50_000)
        treated = await hospital.purchase(chip, amount_minor=18_600, wallet=MEDICAL_WALLET)
        self._expect_approved(treated, 18_600)
        self._expect("medical wallet", expected=31_400, got=treated.available_minor)
        groceries = await self._shop.purchase(chip, amount_minor=4_500, wallet=MEDICAL_WALLET)
        self._expect_reason(groceries, "57", REASON.DECISION_REASON_WALLET_NOT_ALLOWED)
        told = await hospital.inquire_balance(chip, wallet=MEDICAL_WALLET)
        self._expect("medical wallet", expected=31_400, got=told.available_minor)
        await self._expect_left()

    async def _benefit(self) -> None:
        chip = self._guest.chip
        office = BenefitOffice(self._callers.fund, counter_id=f"P{self._place}")
        self._expect_approved(await office.credit(chip.pan, amount_minor=120_000), 120_000)
        bought = await self._shop.purchase(chip, amount_minor=36_000, wallet=BENEFIT_WALLET)
        self._expect_approved(bought, 36_000)
        self._expect("benefit wallet", expected=84_000, got=bought.available_minor)
        no_fund = BenefitOffice(self._callers.bank).credit(chip.pan, amount_minor=1)
        expected = "PERMISSION_DENIED RPC_CLASS_NOT_GRANTED"
        self._expect("a bank's benefit", expected=expected, got=await refusal_of(no_fund))

    async def _hotel(self) -> None:
        """A stay of two nights: held, held more, taken in parts, and the rest released."""
        chip = self._guest.chip
        desk = Holds(self._terminal("D", HOTEL))
        held = await desk.pre_authorize(chip, amount_minor=200_000)
        self._expect_approved(held, 200_000)
        self._expect("available", expected=self._left_minor - 200_000, got=held.available_minor)
        pan, rrn = chip.pan, held.rrn
        more = await desk.increment(pan, rrn=rrn, amount_minor=50_000)
        self._expect("held", expected=("00", 250_000), got=(more.response_code, more.held_minor))
        for night_minor, held_minor in ((120_000, 130_000), (60_000, 70_000)):
            night = await desk.complete(pan, rrn=rrn, amount_minor=night_minor, more_follow=True)
            self._expect_approved(night, night_minor)
            self._expect("held", expected=held_minor, got=night.held_minor)
            self._left_minor -= night_minor
        too_much = await desk.complete(pan, rrn=rrn, amount_minor=200_000)
        self._expect_reason(too_much, "64", REASON.DECISION_REASON_ORIGINAL_AMOUNT_EXCEEDED)
        self._expect_approved(await desk.void(pan, rrn=rrn), 70_000)
        late = await desk.complete(pan, rrn=rrn, amount_minor=1)
        self._expect_reason(late, "12", REASON.DECISION_REASON_HOLD_NOT_PENDING)
        await self._expect_left()

    async def _refund(self) -> None:
        pan = self._guest.chip.pan
        bought = await self._shop.purchase(self._guest.chip, amount_minor=30_000)
        self._expect_approved(bought, 30_000)
        for part_minor in (10_000, 15_000):
            part = await self._shop.refund(pan, rrn=bought.rrn, amount_minor=part_minor)
            self._expect_approved(part, part_minor)
        one_too_many = await self._shop.refund(pan, rrn=bought.rrn, amount_minor=5_001)
        self._expect_reason(one_too_many, "64", REASON.DECISION_REASON_ORIGINAL_AMOUNT_EXCEEDED)
        void = await self._shop.void(pan, rrn=bought.rrn)
        self._expect_reason(void, "12", REASON.DECISION_REASON_ORIGINAL_NOT_ELIGIBLE)
        self._left_minor -= 5_000
        await self._expect_left()

    async def _reversal(self) -> None:
        """The till's line broke: the purchase was decided, its answer never came."""
        request = self._shop.prepare_purchase(self._guest.chip, amount_minor=8_800)
        decided = await self._shop.submit(request)
        self._expect_approved(decided, 8_800)
        undone = await self._reversals().reverse(request)
        assert undone is not None, "the core answers here"
        self._expect_approved(undone, 8_800)
        again = await self._reversals().reverse(request)
        assert again is not None, "the core answers here"
        self._expect_reason(again, "94", REASON.DECISION_REASON_ORIGINAL_ALREADY_UNDONE)
        late = await self._shop.submit(request)
        self._expect("a late repetition", expected=decided.rrn, got=late.rrn)
        await self._expect_left()

    async def _reversed_first(self) -> None:
        """The reversal overtakes its purchase, which then comes to nothing however it is sent."""
        request = self._shop.prepare_purchase(self._guest.chip, amount_minor=9_900)
        parked = await self._reversals().reverse(request)
        assert parked is not None, "the core answers here"
        self._expect_reason(parked, "00", REASON.DECISION_REASON_REVERSAL_PARKED)
        for _ in range(2):
            late = await self._shop.submit(request)
            self._expect_reason(late, "05", REASON.DECISION_REASON_REVERSED_IN_ADVANCE)
        await self._expect_left()

    async def _petrol(self) -> None:
        """The pump gives what the card can pay; the driver stops earlier, and the rest is reversed."""
        pump, chip = self._terminal("P", PETROL), self._driver.chip
        asked_minor, filled_minor = self._driver_minor + 50_000, self._driver_minor - 38_000
        request = pump.prepare_purchase(chip, amount_minor=asked_minor, partial_approval_allowed=True)
        part = await pump.submit_with_chip(chip, request)
        self._expect_reason(part, "10", REASON.DECISION_REASON_PARTIALLY_APPROVED)
        got = (part.approved_minor, part.available_minor)
        self._expect("approved in part", expected=(self._driver_minor, 0), got=got)
        rest_minor = part.approved_minor - filled_minor
        rest = pump.requests.reversal_of(request, amount_minor=rest_minor)
        self._expect_approved(await pump.submit(rest), rest_minor)
        told = await pump.inquire_balance(chip)
        self._expect("available", expected=rest_minor, got=told.available_minor)

    async def _cash(self) -> None:
        """Cash never without the PIN."""
        self._expect("issue of the PIN", expected="00", got=await self._guest.get_pin())
        machine, chip = self._terminal("C", ""), self._guest.chip
        without = await machine.withdraw_cash(chip, amount_minor=50_000, pin=None)
        self._expect_reason(without, "55", REASON.DECISION_REASON_PIN_REQUIRED)
        guessed = await machine.withdraw_cash(chip, amount_minor=50_000, pin=self._guest.mistype())
        self._expect_reason(guessed, "55", REASON.DECISION_REASON_WRONG_PIN)
        self._expect("nothing told to who does not know it", expected=0, got=guessed.available_minor)
        paid = await machine.withdraw_cash(chip, amount_minor=50_000, pin=self._guest.enter())
        self._expect_approved(paid, 50_000)
        self._left_minor -= 50_000
        await self._expect_left()

    async def _transfer(self) -> None:
        """To a card of the next city, and back after a time-out."""
        chip, neighbour = self._guest.chip, self._neighbour.chip
        without = await self._shop.transfer(chip, to_pan=neighbour.pan, amount_minor=70_000, pin=None)
        self._expect_reason(without, "55", REASON.DECISION_REASON_PIN_REQUIRED)
        sent = await self._shop.transfer(
            chip, to_pan=neighbour.pan, amount_minor=70_000, pin=self._guest.enter()
        )
        self._expect_approved(sent, 70_000)
        again = self._shop.prepare_transfer(
            chip, to_pan=neighbour.pan, amount_minor=30_000, pin=self._guest.enter()
        )
        self._expect_approved(await self._shop.submit(again), 30_000)
        undone = await self._reversals().reverse(again)
        assert undone is not None, "the core answers here"
        self._expect_approved(undone, 30_000)
        received = await self._shop.inquire_balance(neighbour)
        self._expect("received", expected=OPENING_MINOR + 70_000, got=received.available_minor)
        self._left_minor -= 70_000
        await self._expect_left()

    async def _code_payment(self) -> None:
        """The code on the phone pays once, and gets the money back at any time."""
        issued = await Bank(self._callers.bank).card_code(
            self._guest.resident.by_pan, use=identity_pb2.CARD_CODE_USE_PAYMENT
        )
        bought = await self._shop.pay_by_code(issued.card_code, amount_minor=2_600)
        self._expect_approved(bought, 2_600)
        twice = await self._shop.pay_by_code(issued.card_code, amount_minor=2_600)
        self._expect_reason(twice, "05", REASON.DECISION_REASON_CARD_CODE_USED)
        back = await self._shop.refund(CardCode(issued.card_code), rrn=bought.rrn, amount_minor=2_600)
        self._expect_approved(back, 2_600)
        await self._expect_left()

    async def _card_on_file(self) -> None:
        """A subscription that charges the card it has on file, until the holder ends it."""
        token = f"subscription-{self._place}"
        operator = Bank(self._callers.terminals)
        await operator.register_card_token(self._guest.resident.by_pan, card_token=token)
        taken = await refusal_of(operator.register_card_token(self._driver.by_pan, card_token=token))
        self._expect("registered twice", expected="ALREADY_EXISTS CARD_TOKEN_TAKEN card_token", got=taken)
        charged = await self._shop.charge_token(token, amount_minor=1_500)
        self._expect_approved(charged, 1_500)
        await operator.revoke_card_token(token)
        ended = await self._shop.charge_token(token, amount_minor=1_500)
        self._expect_reason(ended, "14", REASON.DECISION_REASON_CARD_TOKEN_UNKNOWN)
        back = await self._shop.refund(CardToken(token), rrn=charged.rrn, amount_minor=500)
        self._expect_approved(back, 500)
        self._left_minor -= 1_000
        await self._expect_left()

    async def _look_up(self) -> None:
        """What became of a purchase, by each of its names; nobody else's."""
        request = self._shop.prepare_purchase(self._guest.chip, amount_minor=1_200)
        answer = await self._shop.submit_with_chip(self._guest.chip, request)
        self._expect_approved(answer, 1_200)
        await self._shop.refund(request.pan, rrn=answer.rrn, amount_minor=200)
        self._left_minor -= 1_000
        look_up = LookUp(self._callers.terminals)
        for found in (
            await look_up.by_rrn(answer.rrn),
            await look_up.by_request_id(request.request_id),
            await look_up.by_switch_key(
                terminal_id=request.terminal_id, stan=request.stan, business_date=answer.business_date
            ),
        ):
            self._expect("the stored answer", expected=answer, got=found.response)
            self._expect("refunded", expected=200, got=found.refunded_minor)
        foreign = await refusal_of(LookUp(self._callers.fund).by_rrn(answer.rrn))
        self._expect("no grant", expected="PERMISSION_DENIED RPC_CLASS_NOT_GRANTED", got=foreign)
        foreign = await refusal_of(LookUp(self._callers.bank).by_rrn(answer.rrn))
        self._expect("another's", expected="NOT_FOUND OPERATION_UNKNOWN key", got=foreign)
        await self._expect_left()

    def _terminal(self, letter: str, merchant_id: str) -> Terminal:
        return Terminal(
            self._callers.terminals, terminal_id=f"{letter}{self._place}", merchant_id=merchant_id
        )

    def _reversals(self) -> Reversals:
        return Reversals(self._callers.terminals, self._shop.requests)

    async def _expect_left(self) -> None:
        told = await self._shop.inquire_balance(self._guest.chip)
        got = (told.response_code, told.available_minor)
        self._expect("what is left", expected=("00", self._left_minor), got=got)

    def _expect_approved(self, answer: pb.AuthorizeResponse, approved_minor: int) -> None:
        got = (answer.response_code, answer.approved_minor)
        self._expect("approved", expected=("00", approved_minor), got=got)

    def _expect_reason(
        self, answer: pb.AuthorizeResponse, code: str, reason: "pb.DecisionReason.ValueType"
    ) -> None:
        expected, got = (code, REASON.Name(reason)), (answer.response_code, REASON.Name(answer.reason))
        self._expect("decision", expected=expected, got=got)

    def _expect(self, what: str, *, expected: object, got: object) -> None:
        self._scorecard.expect(self._place, self._scene, what, expected=expected, got=got)
