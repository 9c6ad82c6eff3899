"""Operations encoded ahead must be the operations a real card and terminal would send."""

import uuid
from array import array
from pathlib import Path

from onecard.v1 import authorization_pb2 as pb

from benchmarks.operations import (
    AIP,
    CVR,
    IAD,
    TVR,
    CardDeck,
    OperationSource,
    encode_chunk,
    encode_operation,
)
from benchmarks.operations import _Chunk as Chunk
from benchmarks.payload_file import PayloadQueue
from crypto.cryptogram import TransactionData, generate_arqc
from crypto.diversification import derive_pboc_session_key
from crypto.keys import Cipher

CARDS = 5


def _deck() -> CardDeck:
    pans = tuple(f"6217000010012345{number:03d}" for number in range(CARDS))
    return CardDeck(pans, ("00",) * CARDS, bytes(range(16 * CARDS)), Cipher.SM4)


def _chunk(frame: int) -> Chunk:
    return Chunk(40, array("L", [0, 1, 2, 0]), array("H", [1, 1, 1, 2]), frame, 3)


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
