"""Operations encoded ahead must be the operations a real card and terminal would send."""

import uuid
from array import array
from pathlib import Path

from onecard.v1 import authorization_pb2 as pb

from benchmarks.operations import (
    AIP,
    CVR,
    IAD,
    ONE_MERCHANT,
    OVER_LIMIT_MINOR,
    TVR,
    CardDeck,
    Flaw,
    Mix,
    OperationSource,
    encode_chunk,
    encode_operation,
)
from benchmarks.operations import _Chunk as Chunk
from benchmarks.payload_file import PayloadQueue
from crypto.cryptogram import TransactionData, generate_arqc
from crypto.diversification import derive_pboc_session_key
from crypto.keys import Cipher
from server.cards.synthetic import TRANSACTION_AMOUNT_MAX_MINOR

CARDS = 5


def _deck(*, poor: int = 0) -> CardDeck:
    pans = tuple(f"6217000010012345{number:03d}" for number in range(CARDS))
    return CardDeck(pans, ("00",) * CARDS, bytes(range(16 * CARDS)), Cipher.SM4, poor)


def _chunk(frame: int) -> Chunk:
    return Chunk(40, array("L", [0, 1, 2, 0]), array("H", [1, 1, 1, 2]), bytes(4), frame, False, 3)


def test_the_cryptogram_is_the_cards_own() -> None:
    deck = _deck()
    request = encode_operation(
        deck, card=2, atc=258, serial=0, unpredictable_number=b"\x01\x02\x03\x04", amount_minor=1_234
    )
    signed = TransactionData(
        amount_authorized_minor=1_234,
        amount_other_minor=0,
        terminal_country_code="156",
        tvr=TVR,
        transaction_currency_code="156",
        transaction_date=request.chip.transaction_date,
        transaction_type="00",
        unpredictable_number=b"\x01\x02\x03\x04",
        aip=AIP,
        atc=258,
        cvr=CVR,
    )
    session_key = derive_pboc_session_key(deck.udk(2), atc=258)
    assert request.chip.arqc == generate_arqc(session_key, signed.encode())
    assert request.pan == deck.pans[2]
    assert (request.chip.atc, request.chip.iad, request.chip.psn) == (258, IAD, "00")


def test_single_requests_parse_back() -> None:
    requests = [pb.AuthorizeRequest.FromString(message) for message in encode_chunk(_deck(), _chunk(0))]
    assert [request.chip.atc for request in requests] == [1, 1, 1, 2]
    assert {request.operation for request in requests} == {pb.OPERATION_TYPE_PURCHASE}
    assert {uuid.UUID(request.request_id).version for request in requests} == {7}
    assert len({(request.terminal_id, request.stan) for request in requests}) == 4


def test_frames_parse_back_with_their_operations_in_order() -> None:
    frames = [pb.AuthorizeStreamRequest.FromString(message) for message in encode_chunk(_deck(), _chunk(2))]
    assert [len(frame.operations) for frame in frames] == [2, 2]
    assert [frame.frame_id for frame in frames] == [40, 42]
    assert [op.terminal_id for frame in frames for op in frame.operations] == [
        "B0000040",
        "B0000041",
        "B0000042",
        "B0000043",
    ]


def test_each_flaw_is_the_only_thing_wrong_with_its_operation() -> None:
    flaws = bytes([Flaw.NONE, Flaw.WRONG_CRYPTOGRAM, Flaw.OVER_LIMIT, Flaw.NO_MONEY])
    spoiled = Chunk(40, array("L", [0, 1, 2, 0]), array("H", [1, 1, 1, 2]), flaws, 0, False, 3)
    right = [pb.AuthorizeRequest.FromString(message) for message in encode_chunk(_deck(), _chunk(0))]
    wrong = [pb.AuthorizeRequest.FromString(message) for message in encode_chunk(_deck(), spoiled)]
    assert [request.amount_minor == OVER_LIMIT_MINOR for request in wrong] == [False, False, True, False]
    assert wrong[0].chip == right[0].chip
    assert wrong[1].chip.arqc == bytes(byte ^ 0xFF for byte in right[1].chip.arqc)
    assert OVER_LIMIT_MINOR > TRANSACTION_AMOUNT_MAX_MINOR


def test_terminals_are_spread_over_merchants_unless_one_is_asked_for() -> None:
    hot = Chunk(40, array("L", [0, 1, 2, 0]), array("H", [1, 1, 1, 2]), bytes(4), 0, True, 3)
    for chunk, merchants in ((_chunk(0), 4), (hot, 1)):
        requests = [pb.AuthorizeRequest.FromString(message) for message in encode_chunk(_deck(), chunk)]
        assert len({request.merchant_id for request in requests}) == merchants
        assert len({request.terminal_id for request in requests}) == 4
    assert requests[0].merchant_id == ONE_MERCHANT


def test_cards_without_money_buy_only_where_a_decline_is_meant(tmp_path: Path) -> None:
    source = OperationSource(_deck(poor=2), seed=1)
    assert source.cards == 3
    path = tmp_path / "operations"
    for mix, shares in (
        (Mix(), (0, 0)),
        (Mix(cards_max=1), (0, 0)),
        (Mix(declined_share=0.3), (70, 130)),
    ):
        source.write_requests(path, 1_000, mix=mix)
        queue = PayloadQueue(path.read_bytes(), cycles=False)
        requests = [pb.AuthorizeRequest.FromString((queue.take() or b"")[5:]) for _ in range(1_000)]
        poor = sum(request.pan in _deck().pans[3:] for request in requests)
        assert shares[0] <= poor <= shares[1]
        if mix.cards_max == 1:
            assert {request.pan for request in requests} == {_deck().pans[0]}


def test_counters_and_stans_never_come_twice_across_suites(tmp_path: Path) -> None:
    source = OperationSource(_deck(), seed=1)
    path = tmp_path / "operations"
    seen: list[pb.AuthorizeRequest] = []
    for _ in range(2):
        source.write_requests(path, 30)
        queue = PayloadQueue(path.read_bytes(), cycles=False)
        while (payload := queue.take()) is not None:
            seen.append(pb.AuthorizeRequest.FromString(payload[5:]))
    assert len({request.request_id for request in seen}) == 60
    assert len({(request.terminal_id, request.stan) for request in seen}) == 60
    for pan in _deck().pans:
        atcs = [request.chip.atc for request in seen if request.pan == pan]
        assert atcs == list(range(1, len(atcs) + 1))


def test_a_deck_never_shows_its_keys() -> None:
    assert repr(_deck()) == "CardDeck(5 cards, SM4, keys ****)"
