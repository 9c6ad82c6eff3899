"""What a desk sends is what the core's edge accepts, and every answer is acknowledged as it was given."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from onecard.v1 import (
    authorization_pb2,
    card_authentication_pb2,
    cards_pb2,
    common_pb2,
    cryptography_pb2,
    identity_pb2,
)

from clients.chip_card import IssuerNotGenuineError
from clients.demo.residents import BDK, IMK, Bureau, Resident
from clients.pin_pad import PinPad
from crypto.cryptogram import generate_arpc_method_1
from crypto.diversification import derive_pboc_session_key
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyUsage
from loadtests.card_pool import CardPool, CodeOnPhone, NoFreeCardError
from loadtests.core_calls import Acknowledgement
from loadtests.operations import CODE_USABLE_S, POSSIBLE, Desk
from loadtests.till import CASH_SHARE, PURCHASE_SHARE
from server.edge.chip import checked_chip_answer, presented_cryptogram
from server.engine.operation import OperationKind

PIN = "482913"
CHALLENGE = card_authentication_pb2.CreateChallengeResponse(
    process_factor=bytes(8), original_data=bytes(range(8)), challenge_token="token-of-the-core"
)


class ScriptedCore:
    """Answers with one response per method and keeps what came."""

    def __init__(self, **answers: Message) -> None:
        self.answers = answers
        self.came: list[Any] = []
        self.authorize: Callable[[Any], Message] | None = None

    def send(self, rpc: Any, request: Any) -> Any:
        assert isinstance(request, rpc.request_type)
        self.came.append(request)
        if self.authorize is not None and rpc.path.endswith("/Authorize"):
            return self.authorize(request)
        return self.answers.get(rpc.path.rsplit("/", 1)[1]) or rpc.response_type()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    SoftwareKeyStore.create(folder / "keys")
    return folder


@pytest.fixture
def residents(data_dir: Path) -> list[Resident]:
    return [Bureau(data_dir).produce(number)[1] for number in (3, 4)]


@pytest.fixture
def resident(residents: list[Resident]) -> Resident:
    return residents[0]


def desk_of(
    core: ScriptedCore, *residents: Resident, now_s: float = 0.0, rng: random.Random | None = None
) -> tuple[Desk, list[Acknowledgement]]:
    acknowledged: list[Acknowledgement] = []
    desk = Desk(
        core,
        CardPool(residents),
        terminal_id="L0000001",
        pad=PinPad(Key(Cipher.SM4, KeyUsage.DUKPT_INITIAL, bytes(range(16))), ksn=bytes(12), bdk_name=BDK),
        pins={resident.chip.pan: PIN for resident in residents},
        rng=rng or random.Random(1),
        acknowledge=acknowledged.append,
        now_s=lambda: now_s,
    )
    return desk, acknowledged


class Draw(random.Random):
    """Draws one number for the kind of a payment, and amounts as they come."""

    def __new__(cls, kind: float) -> "Draw":
        return super().__new__(cls)

    def __init__(self, kind: float) -> None:
        super().__init__(1)
        self._kind = kind

    def random(self) -> float:
        return self._kind


PURCHASE, CASH, TRANSFER = Draw(0.0), Draw(PURCHASE_SHARE), Draw(PURCHASE_SHARE + CASH_SHARE)


@pytest.mark.parametrize(
    ("operation", "kind", "amount_max"),
    [("financial", OperationKind.PURCHASE, 5_000), ("tap", OperationKind.TAP, 400)],
    ids=["financial", "tap"],
)
def test_purchase_parses_and_its_cryptogram_is_over_its_amount(
    resident: Resident, data_dir: Path, operation: str, kind: OperationKind, amount_max: int
) -> None:
    declined = authorization_pb2.AuthorizeResponse(
        response_code="51", reason=authorization_pb2.DECISION_REASON_INSUFFICIENT_FUNDS
    )
    core = ScriptedCore(Authorize=declined)
    desk, acknowledged = desk_of(core, resident, rng=PURCHASE)
    assert desk.perform(operation) == "51 INSUFFICIENT_FUNDS"
    (request,) = core.came
    assert 1 <= request.amount_minor <= amount_max
    presented = presented_cryptogram("chip", request.chip, pan=request.pan, amount_minor=request.amount_minor)
    assert presented.pan == resident.chip.pan
    store = SoftwareKeyStore.open(data_dir / "keys")
    (udk,) = store.diversify_udks(store.active(IMK), [(request.pan, request.chip.psn)])
    session_key = derive_pboc_session_key(udk, atc=request.chip.atc)
    # A decline with an ARPC is checked by the chip as well.
    arpc = generate_arpc_method_1(session_key, arqc=request.chip.arqc, arc=b"51")
    resident.chip.verify_issuer(request.chip, response_code="51", arpc=arpc)
    assert acknowledged == [
        Acknowledgement(
            kind=kind,
            request_id=request.request_id,
            reason=14,
            amount_minor=request.amount_minor,
        )
    ]


def test_approval_without_the_issuers_arpc_is_a_failure_that_is_acknowledged(resident: Resident) -> None:
    approved = authorization_pb2.AuthorizeResponse(response_code="00", reason=1, arpc=bytes(8))
    desk, acknowledged = desk_of(ScriptedCore(Authorize=approved), resident, rng=PURCHASE)
    with pytest.raises(IssuerNotGenuineError):
        desk.perform("financial")
    assert len(acknowledged) == 1


@pytest.mark.parametrize("draw", [CASH, TRANSFER], ids=["cash", "transfer"])
def test_cash_and_transfer_carry_the_pin_of_their_card(residents: list[Resident], draw: Draw) -> None:
    declined = authorization_pb2.AuthorizeResponse(response_code="51", reason=14)
    core = ScriptedCore(Authorize=declined)
    desk, acknowledged = desk_of(core, *residents, rng=draw)
    assert desk.perform("financial") == "51 INSUFFICIENT_FUNDS"
    (request,) = core.came
    assert request.pin.key.name == BDK
    assert len(request.pin.block) == 16
    is_transfer = request.operation == authorization_pb2.OPERATION_TYPE_TRANSFER
    assert acknowledged[0].kind is (OperationKind.TRANSFER if is_transfer else OperationKind.CASH_WITHDRAWAL)
    assert request.to_pan == (residents[0].chip.pan if is_transfer else "")
    # Both cards are free again.
    for _ in range(2):
        desk.perform("inquiry")
    assert {asked.pan for asked in core.came[1:]} == {resident.chip.pan for resident in residents}


def test_wrong_pin_is_an_answer_and_acknowledged_as_it_was_judged(resident: Resident) -> None:
    wrong = cryptography_pb2.VerifyPinResponse(
        response_code="55", reason=cryptography_pb2.PIN_REASON_WRONG_PIN
    )
    core = ScriptedCore(VerifyPin=wrong)
    desk, acknowledged = desk_of(core, resident)
    assert desk.perform("verify_pin") == "55 WRONG_PIN"
    assert acknowledged[0].kind is OperationKind.VERIFY_PIN
    assert acknowledged[0].reason == cryptography_pb2.PIN_REASON_WRONG_PIN


def test_reversal_undoes_the_last_purchase_once_and_then_one_that_never_came(
    resident: Resident, data_dir: Path
) -> None:
    store = SoftwareKeyStore.open(data_dir / "keys")
    (udk,) = store.diversify_udks(store.active(IMK), [(resident.chip.pan, resident.chip.psn)])

    def approved(request: authorization_pb2.AuthorizeRequest) -> authorization_pb2.AuthorizeResponse:
        arpc = b""
        if request.HasField("chip"):
            session_key = derive_pboc_session_key(udk, atc=request.chip.atc)
            arpc = generate_arpc_method_1(session_key, arqc=request.chip.arqc, arc=b"00")
        return authorization_pb2.AuthorizeResponse(response_code="00", reason=1, arpc=arpc)

    core = ScriptedCore()
    core.authorize = approved
    desk, acknowledged = desk_of(core, resident, rng=PURCHASE)
    for operation in ("financial", "reversal", "reversal"):
        assert desk.perform(operation) == ""
    purchase, reversal, parked = core.came
    assert reversal.original.request_id == purchase.request_id
    assert parked.original.request_id not in {"", purchase.request_id}
    assert [answer.kind for answer in acknowledged] == [
        OperationKind.PURCHASE,
        OperationKind.REVERSAL,
        OperationKind.REVERSAL,
    ]
    assert acknowledged[1].amount_minor == 0


def test_counters_of_a_card_and_trace_numbers_of_a_desk_ascend(resident: Resident) -> None:
    declined = authorization_pb2.AuthorizeResponse(response_code="51", reason=14)
    core = ScriptedCore(Authorize=declined)
    desk, _ = desk_of(core, resident)
    for _ in range(3):
        desk.perform("tap")
    assert [request.chip.atc for request in core.came] == [1, 2, 3]
    assert [request.stan for request in core.came] == [1, 2, 3]
    assert len({request.request_id for request in core.came}) == 3


def test_chip_answers_the_challenge_it_was_given(resident: Resident) -> None:
    used = card_authentication_pb2.AuthenticateCardResponse(
        reason=card_authentication_pb2.CARD_AUTHENTICATION_REASON_CHALLENGE_USED
    )
    core = ScriptedCore(CreateChallenge=CHALLENGE, AuthenticateCard=used)
    desk, acknowledged = desk_of(core, resident)
    assert desk.perform("authenticate_card") == "CHALLENGE_USED"
    code, token, response = checked_chip_answer("answer", core.came[1].answer)
    assert (code, token) == (resident.chip.identification_code, CHALLENGE.challenge_token)
    assert response == resident.chip.answer(CHALLENGE).response
    assert acknowledged[0].kind is OperationKind.AUTHENTICATE_CARD
    assert acknowledged[0].reason == 4


def test_code_is_shown_once_after_it_was_opened(resident: Resident) -> None:
    core = ScriptedCore(
        IssueCardCode=identity_pb2.IssueCardCodeResponse(card_code="code"),
        VerifyIdentity=identity_pb2.VerifyIdentityResponse(verified=True, reason=1),
    )
    desk, acknowledged = desk_of(core, resident)
    assert desk.perform("issue_card_code") == ""
    assert desk.perform("verify_code") == ""
    # There is no code left: the holder opens one first.
    assert desk.perform("verify_code") == ""
    assert [type(request).__name__ for request in core.came] == [
        "IssueCardCodeRequest",
        "VerifyIdentityRequest",
    ] * 2
    assert core.came[1].card_code == "code"
    assert [answer.kind for answer in acknowledged] == [
        OperationKind.ISSUE_CARD_CODE,
        OperationKind.VERIFY_IDENTITY,
    ] * 2


def test_name_and_number_mismatch_is_a_decline(resident: Resident) -> None:
    core = ScriptedCore(VerifyIdentity=identity_pb2.VerifyIdentityResponse(reason=2))
    desk, _ = desk_of(core, resident)
    assert desk.perform("verify_name_number") == "MISMATCH"
    assert core.came[0].name_and_number.identity_number == resident.identity_number


def test_lost_card_is_used_by_nobody_until_it_is_found(resident: Resident) -> None:
    status = cards_pb2.GetCardStatusResponse(status=common_pb2.CARD_STATUS_NORMAL)
    core = ScriptedCore(GetCardStatus=status)
    desk, acknowledged = desk_of(core, resident)
    desk.perform("lifecycle")
    with pytest.raises(NoFreeCardError):
        desk.perform("card_status")
    desk.perform("lifecycle")
    assert desk.perform("card_status") == ""
    assert [answer.kind for answer in acknowledged] == [
        OperationKind.REPORT_LOSS,
        OperationKind.LIFT_LOSS,
        OperationKind.GET_CARD_STATUS,
    ]


def test_every_possible_operation_gives_its_card_back_or_keeps_it_apart(residents: list[Resident]) -> None:
    declined = authorization_pb2.AuthorizeResponse(response_code="51", reason=14)
    core = ScriptedCore(CreateChallenge=CHALLENGE, Authorize=declined)
    for operation in POSSIBLE - {"lifecycle"}:
        desk, acknowledged = desk_of(core, *residents)
        for _ in range(2):
            desk.perform(operation)
        assert len(acknowledged) >= 2


def test_code_that_nobody_came_to_show_frees_its_card(resident: Resident) -> None:
    pool = CardPool([resident])
    taken = pool.take(now_s=0.0)
    with pytest.raises(NoFreeCardError):
        pool.take(now_s=0.0)
    pool.keep_code(CodeOnPhone(taken, "code", usable_until_s=CODE_USABLE_S))
    assert pool.show_code(now_s=CODE_USABLE_S) is None
    assert pool.take(now_s=CODE_USABLE_S) is resident
