"""What clients build for money operations: every request new, reversals that name their original, masked names."""

from pathlib import Path

import pytest
from onecard.v1 import authorization_pb2 as pb

from clients.chip_card import IssuerNotGenuineError, VirtualChipCard
from clients.demo.residents import IMK, Bureau
from clients.money_requests import CardCode, CardToken, MoneyRequests, StanCounter
from clients.terminal import verify_answer
from crypto.cryptogram import generate_arpc_method_1
from crypto.diversification import derive_pboc_session_key
from crypto.key_store.software import SoftwareKeyStore
from server.edge.chip import presented_cryptogram

NEW_YEAR_S = 1_767_225_600.0
PAN, OTHER_PAN = "6217000000000000008", "6217000000000000016"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    SoftwareKeyStore.create(folder / "keys")
    return folder


@pytest.fixture
def chip(data_dir: Path) -> VirtualChipCard:
    return Bureau(data_dir).produce(5)[1].chip


@pytest.fixture
def requests() -> MoneyRequests:
    return MoneyRequests(terminal_id="T0000001", merchant_id="M1", now_s=lambda: NEW_YEAR_S)


def test_trace_numbers_run_from_1_to_999999_and_begin_anew() -> None:
    stans = StanCounter()
    assert [stans.next(), stans.next()] == [1, 2]
    last = StanCounter(999_998)
    assert [last.next(), last.next()] == [999_999, 1]


def test_chip_signs_the_amount_on_the_day_of_shanghai(requests: MoneyRequests, chip: VirtualChipCard) -> None:
    late = MoneyRequests(terminal_id="T0000001", now_s=lambda: NEW_YEAR_S + 17 * 3600)
    for built, date in ((requests, "260101"), (late, "260102")):
        request = built.with_chip(pb.OPERATION_TYPE_TAP, chip, amount_minor=200)
        assert request.chip.transaction_date == date
        presented = presented_cryptogram("chip", request.chip, pan=request.pan, amount_minor=200)
        assert presented.pan == chip.pan
    assert chip.atc == 2


def test_every_request_of_a_terminal_has_an_id_and_a_trace_number_of_its_own(
    requests: MoneyRequests, chip: VirtualChipCard
) -> None:
    purchase = requests.with_chip(pb.OPERATION_TYPE_PURCHASE, chip, amount_minor=1)
    built = [
        purchase,
        requests.without_chip(pb.OPERATION_TYPE_DEPOSIT, PAN, amount_minor=1),
        requests.following(pb.OPERATION_TYPE_REFUND, PAN, rrn="000000000001", amount_minor=1),
        requests.reversal_of(purchase),
    ]
    assert [request.stan for request in built] == [1, 2, 3, 4]
    assert len({request.request_id for request in built}) == 4
    assert {request.terminal_time_unix_ms for request in built} == {int(NEW_YEAR_S * 1000)}


@pytest.mark.parametrize(
    ("operation", "mti_class"),
    [
        (pb.OPERATION_TYPE_PURCHASE, 2),
        (pb.OPERATION_TYPE_COMPLETION, 2),
        (pb.OPERATION_TYPE_PRE_AUTHORIZATION, 1),
        (pb.OPERATION_TYPE_INCREMENT, 1),
    ],
    ids=lambda value: str(value),
)
def test_reversal_names_its_original_by_id_and_by_the_class_of_its_message(
    requests: MoneyRequests, operation: "pb.OperationType.ValueType", mti_class: int
) -> None:
    original = requests.without_chip(operation, PAN, amount_minor=900, wallet=3)
    reversal = requests.reversal_of(original, amount_minor=400)
    assert reversal.original == pb.OriginalReference(
        request_id=original.request_id, stan=original.stan, terminal_id="T0000001", mti_class=mti_class
    )
    assert (reversal.pan, reversal.amount_minor, reversal.wallet) == (PAN, 400, 3)
    assert not reversal.HasField("chip")


def test_reversal_repeats_the_card_that_money_went_to(requests: MoneyRequests) -> None:
    original = requests.without_chip(pb.OPERATION_TYPE_TRANSFER, PAN, amount_minor=900)
    original.to_pan = OTHER_PAN
    assert requests.reversal_of(original).to_pan == OTHER_PAN


@pytest.mark.parametrize(
    "name", [CardCode("code-on-a-phone"), CardToken("token-0001")], ids=["code", "token"]
)
def test_card_is_named_in_every_follow_up_as_it_was_at_first(
    requests: MoneyRequests, name: CardCode | CardToken
) -> None:
    original = requests.without_chip(pb.OPERATION_TYPE_PURCHASE, name, amount_minor=900)
    refund = requests.following(pb.OPERATION_TYPE_REFUND, name, rrn="000000000001", amount_minor=1)
    for request in (original, refund, requests.reversal_of(original)):
        assert request.pan == ""
        assert name.text in (request.card_code, request.card_token)
        assert "" in (request.card_code, request.card_token)
    assert name.text not in repr(name)


def test_code_over_a_message_is_put_on_once_and_goes_again_as_it_went(data_dir: Path) -> None:
    pad = Bureau(data_dir).pin_pad(1)
    coding = MoneyRequests(terminal_id="T0000001", put_mac=pad.put_mac)
    request = coding.without_chip(pb.OPERATION_TYPE_DEPOSIT, PAN, amount_minor=900)
    assert not request.HasField("mac")
    first = coding.coded(request).SerializeToString()
    assert len(request.mac.mac) == 8
    assert coding.coded(request).SerializeToString() == first
    # The next message has a key of its own.
    other = coding.coded(coding.reversal_of(request))
    assert other.mac.ksn != request.mac.ksn


def test_terminal_without_a_key_puts_no_code_on(requests: MoneyRequests) -> None:
    request = requests.without_chip(pb.OPERATION_TYPE_DEPOSIT, PAN, amount_minor=900)
    assert not requests.coded(request).HasField("mac")


@pytest.mark.parametrize("code", ["00", "10"])
def test_approval_whole_or_in_part_is_nothing_without_the_issuers_arpc(
    requests: MoneyRequests, chip: VirtualChipCard, data_dir: Path, code: str
) -> None:
    request = requests.with_chip(pb.OPERATION_TYPE_PURCHASE, chip, amount_minor=500)
    with pytest.raises(IssuerNotGenuineError):
        verify_answer(chip, request, pb.AuthorizeResponse(response_code=code))
    store = SoftwareKeyStore.open(data_dir / "keys")
    (udk,) = store.diversify_udks(store.active(IMK), [(request.pan, request.chip.psn)])
    session_key = derive_pboc_session_key(udk, atc=request.chip.atc)
    arpc = generate_arpc_method_1(session_key, arqc=request.chip.arqc, arc=code.encode())
    verify_answer(chip, request, pb.AuthorizeResponse(response_code=code, arpc=arpc))
    # A whole approval made of a partial one: the goods would be given for less money.
    other = {"00": "10", "10": "00"}[code]
    with pytest.raises(IssuerNotGenuineError):
        verify_answer(chip, request, pb.AuthorizeResponse(response_code=other, arpc=arpc))
