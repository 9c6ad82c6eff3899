"""Purchases as real cards make them, encoded before the clock starts.

Each has its own request id (UUIDv7), its own terminal and STAN, a random card, that card's next transaction
counter, and a cryptogram under that card's own key; some may be made to be declined. Making one costs about as
much as deciding one, so it is done ahead, on all cores, and never while anything is measured.
"""

from __future__ import annotations

import random
import sys
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import uuid_utils
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2

from benchmarks.cpu_accounting import cores
from benchmarks.payload_file import write_payloads
from crypto.blocks import encrypt_ecb
from crypto.cryptogram import ArqcSession, TransactionData
from crypto.diversification import pboc_session_factor
from crypto.keys import Cipher, Key, KeyUsage

KEY_BYTES: Final = 16
ATC_MAX: Final = 65_535
STAN_MAX: Final = 999_999
TERMINALS: Final = 10_000
# A card without money holds 1.
AMOUNT_MINOR_MIN: Final = 2
AMOUNT_MINOR_MAX: Final = 5_000
# Above what a synthetic card may spend at once.
OVER_LIMIT_MINOR: Final = 600_000
ONE_MERCHANT: Final = "M00000000000000"
COUNTRY_CODE: Final = "156"
CURRENCY_CODE: Final = "156"
TVR: Final = bytes.fromhex("0000008000")
AIP: Final = bytes.fromhex("7C00")
IAD: Final = bytes.fromhex("07010103A00000010A010000000000A1B2C3D4")
CVR: Final = IAD[3:7]
_CHUNK_OPERATIONS: Final = 8_192


@dataclass(frozen=True)
class CardDeck:
    """What the chips of the benched cards hold. Bench keys only: they came from a key store made for the run.

    Args:
        pans: card numbers.
        psns: PAN sequence numbers, as many.
        udks: the cards' keys, 16 bytes each, one behind the other.
        cipher: of all these keys.
        poor: how many cards at the end have no money.
    """

    pans: tuple[str, ...]
    psns: tuple[str, ...]
    udks: bytes
    cipher: Cipher
    poor: int = 0

    def __post_init__(self) -> None:
        if not len(self.pans) == len(self.psns) == len(self.udks) // KEY_BYTES:
            raise ValueError("a card has one number, one sequence number and one key")

    def __repr__(self) -> str:
        return f"CardDeck({len(self.pans)} cards, {self.cipher.value}, keys ****)"

    def udk(self, card: int) -> Key:
        """The key of one card."""
        return Key(self.cipher, KeyUsage.UDK_AC, self.udks[card * KEY_BYTES : (card + 1) * KEY_BYTES])


class Flaw(IntEnum):
    """Why a purchase will be declined."""

    NONE = 0
    NO_MONEY = 1
    WRONG_CRYPTOGRAM = 2
    OVER_LIMIT = 3


FLAW_CODES: Final = {Flaw.NO_MONEY: "51", Flaw.WRONG_CRYPTOGRAM: "05", Flaw.OVER_LIMIT: "61"}
_FLAWS: Final = tuple(FLAW_CODES)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What sort of purchases to make.

    Args:
        one_merchant: all at one merchant; else each terminal is a merchant's own.
        declined_share: of the purchases, 0 to 1, evenly over the kinds of :class:`Flaw`.
        cards_max: use only so many cards of the deck.
    """

    one_merchant: bool = False
    declined_share: float = 0.0
    cards_max: int = sys.maxsize


SPREAD: Final = Mix()


@dataclass(frozen=True)
class _Chunk:
    """Neighbouring operations: which card and counter each takes, and where their serial numbers begin."""

    first_serial: int
    cards: array[int]
    atcs: array[int]
    flaws: bytes
    """A :class:`Flaw` for each."""
    frame: int
    """Operations per frame; 0 for single ones."""
    one_merchant: bool
    seed: int


def encode_operation(
    deck: CardDeck,
    *,
    card: int,
    atc: int,
    serial: int,
    unpredictable_number: bytes,
    amount_minor: int,
    merchant_id: str | None = None,
    is_genuine: bool = True,
) -> pb.AuthorizeRequest:
    """Makes one purchase, cryptogram included.

    Args:
        deck: the cards.
        card: index in the deck.
        atc: the card's transaction counter, 1 to 65535.
        serial: number of the operation in the whole bench; gives terminal and STAN.
        unpredictable_number: 4 bytes of the terminal.
        amount_minor: 1 to 999999999999.
        merchant_id: None for the one of the terminal.
        is_genuine: False spoils the cryptogram.
    """
    now_s = time.time()
    transaction_date = time.strftime("%y%m%d", time.gmtime(now_s + 8 * 3600))
    round_number, terminal = divmod(serial, TERMINALS)
    signed = TransactionData(
        amount_authorized_minor=amount_minor,
        amount_other_minor=0,
        terminal_country_code=COUNTRY_CODE,
        tvr=TVR,
        transaction_currency_code=CURRENCY_CODE,
        transaction_date=transaction_date,
        transaction_type="00",
        unpredictable_number=unpredictable_number,
        aip=AIP,
        atc=atc,
        cvr=CVR,
    )
    session_key = encrypt_ecb(deck.udk(card), pboc_session_factor(atc))
    arqc = ArqcSession(deck.cipher, session_key).mac(signed.encode())
    return pb.AuthorizeRequest(
        request_id=str(uuid_utils.uuid7()),
        operation=pb.OPERATION_TYPE_PURCHASE,
        pan=deck.pans[card],
        amount_minor=amount_minor,
        currency_code="CNY",
        terminal_id=f"B{terminal:07d}",
        merchant_id=merchant_id or f"M{terminal:014d}",
        stan=round_number + 1,
        terminal_time_unix_ms=int(now_s * 1000),
        chip=common_pb2.ChipCryptogram(
            arqc=arqc if is_genuine else bytes(byte ^ 0xFF for byte in arqc),
            atc=atc,
            unpredictable_number=unpredictable_number,
            tvr=TVR,
            aip=AIP,
            iad=IAD,
            transaction_date=transaction_date,
            terminal_country_code=COUNTRY_CODE,
            psn=deck.psns[card],
        ),
    )


def encode_chunk(deck: CardDeck, chunk: _Chunk) -> list[bytes]:
    """Encodes a chunk as requests, or as frames of requests."""
    rng = random.Random(chunk.seed)
    requests = [
        encode_operation(
            deck,
            card=card,
            atc=atc,
            serial=chunk.first_serial + offset,
            unpredictable_number=rng.randbytes(4),
            amount_minor=OVER_LIMIT_MINOR
            if flaw == Flaw.OVER_LIMIT
            else rng.randint(AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX),
            merchant_id=ONE_MERCHANT if chunk.one_merchant else None,
            is_genuine=flaw != Flaw.WRONG_CRYPTOGRAM,
        )
        for offset, (card, atc, flaw) in enumerate(zip(chunk.cards, chunk.atcs, chunk.flaws, strict=True))
    ]
    if not chunk.frame:
        return [request.SerializeToString() for request in requests]
    return [
        pb.AuthorizeStreamRequest(
            frame_id=chunk.first_serial + start, operations=requests[start : start + chunk.frame]
        ).SerializeToString()
        for start in range(0, len(requests), chunk.frame)
    ]


_deck: CardDeck | None = None


def _adopt_deck(deck: CardDeck) -> None:
    """Gives a pool process the cards once, not with every chunk."""
    global _deck
    _deck = deck


def _encode_in_pool(chunk: _Chunk) -> list[bytes]:
    assert _deck is not None, "the pool was started with the deck"
    return encode_chunk(_deck, chunk)


class OperationSource:
    """Hands out operations for a whole bench: no card's counter, no STAN and no request id comes twice."""

    def __init__(self, deck: CardDeck, *, seed: int) -> None:
        """Starts with fresh cards.

        Args:
            deck: the cards; none has made a transaction yet.
            seed: of the choice of cards, amounts and unpredictable numbers.
        """
        self._deck: Final = deck
        self._rng: Final = random.Random(seed)
        self._atcs: Final = array("H", bytes(2 * len(deck.pans)))
        self._serial = 0

    @property
    def cards(self) -> int:
        """Cards with money that make purchases."""
        return len(self._deck.pans) - self._deck.poor

    def write_requests(self, path: Path, count: int, *, mix: Mix = SPREAD) -> int:
        """Writes single requests; returns how many."""
        return self._write(path, count=count, frame=0, mix=mix)

    def write_frames(self, path: Path, count: int, *, frame: int, mix: Mix = SPREAD) -> int:
        """Writes frames of ``frame`` operations; returns how many frames."""
        assert 1 <= frame <= 512, "a frame holds 1 to 512 operations"
        return self._write(path, count=count * frame, frame=frame, mix=mix)

    def _write(self, path: Path, *, count: int, frame: int, mix: Mix) -> int:
        chunks = list(self._chunks(count, frame, mix))
        # Spawned, not forked: this process may have threads of grpc.
        pool = ProcessPoolExecutor(
            min(cores(), len(chunks)), get_context("spawn"), _adopt_deck, initargs=(self._deck,)
        )
        with pool:
            encoded = pool.map(_encode_in_pool, chunks)
            return write_payloads(path, (message for messages in encoded for message in messages))

    def _chunks(self, count: int, frame: int, mix: Mix) -> Iterator[_Chunk]:
        size = _CHUNK_OPERATIONS if not frame else max(1, _CHUNK_OPERATIONS // frame) * frame
        for first in range(0, count, size):
            length = min(size, count - first)
            cards, atcs, flaws = array("L"), array("H"), bytearray()
            for _ in range(length):
                flaw = self._draw_flaw(mix)
                card = self._draw_card(mix, flaw)
                self._atcs[card] += 1
                cards.append(card)
                atcs.append(self._atcs[card])
                flaws.append(flaw)
            seed = self._rng.getrandbits(63)
            yield _Chunk(self._serial, cards, atcs, bytes(flaws), frame, mix.one_merchant, seed)
            self._serial += length
            assert self._serial // TERMINALS < STAN_MAX, "the terminals have used up their STANs"

    def _draw_flaw(self, mix: Mix) -> Flaw:
        return self._rng.choice(_FLAWS) if self._rng.random() < mix.declined_share else Flaw.NONE

    def _draw_card(self, mix: Mix, flaw: Flaw) -> int:
        """Index of a card: of those without money where that is the flaw, of the others else."""
        if flaw is Flaw.NO_MONEY:
            return self.cards + self._rng.randrange(self._deck.poor)
        return self._rng.randrange(min(self.cards, mix.cards_max))
