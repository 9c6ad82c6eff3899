"""Strict mode: card keys, process keys and session keys of AES and 3DES cards exist in the token alone.

Each is derived there into an object of the session and destroyed there; what comes out is a cryptogram or an
answer. Must never leave a derived object behind, and never work for a batch longer than one call may take: of a
slow token a call does some cards, and the next goes on.
"""

import hmac
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from crypto.blocks import block_size
from crypto.cryptogram import ARQC_SIZE
from crypto.diversification import (
    city_region,
    complemented,
    region_factor,
    session_factor,
    ss_card_factor,
    udk_factor_of,
)
from crypto.errors import KeyUsageError
from crypto.internal_authentication import ORIGINAL_DATA_SIZE
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.lifecycle import TokenKey
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_objects import Handle, TokenObjects
from crypto.keys import Cipher, KeyInfo
from crypto.macs import Padding, pad

CARDS_PER_CALL = 32

Card = TypeVar("Card")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _ArqcFactors:
    """What is derived for one card: F ‖ ~F of its key, then that of the session key."""

    udk: bytes
    session: bytes
    data: bytes
    arqc: bytes


class TokenSession:
    """A session key in the token; destroyed there when this object goes. See ``checks.AnsweringSession``.

    Args:
        connection: to the token.
        objects: the session the handles belong to.
        cipher: 3DES or AES.
        key: the session key.
        chain: 3DES: its left half twice, for all blocks of a MAC but the last; AES: the session key.
    """

    __slots__ = ("__weakref__", "_answers", "_chain", "_cipher", "_connection", "_key", "_objects")

    def __init__(
        self,
        connection: TokenConnection,
        objects: TokenObjects,
        cipher: Cipher,
        *,
        key: Handle,
        chain: Handle,
    ) -> None:
        self._connection = connection
        self._objects = objects
        self._cipher = cipher
        self._key = key
        self._chain = chain
        # By cryptogram and code: a session key signs one cryptogram, but nothing here should depend on it.
        self._answers: dict[tuple[bytes, bytes], bytes] = {}
        handles = [key] if chain is key else [key, chain]
        # Posted to the token's thread: the collector may come by in any.
        destroy = weakref.finalize(
            self, connection.post, lambda token: token.discard(handles), session=objects
        )
        # At the end of the process the session itself ends.
        destroy.atexit = False

    def __repr__(self) -> str:
        return "TokenSession(****)"

    def arpc(self, *, arqc: bytes, arc: bytes) -> bytes:
        """See ``ArqcSession.arpc``."""
        prepared = self._answers.get((arqc, arc))
        return prepared if prepared is not None else self._answered(arqc, [arc])[0]

    def answer_ahead(self, *, arqc: bytes, arcs: Sequence[bytes]) -> None:
        """See ``VerifiedArqc.answer_ahead``."""
        for arc, answer in zip(arcs, self._answered(arqc, arcs), strict=True):
            self._answers[arqc, arc] = answer

    def _answered(self, arqc: bytes, arcs: Sequence[bytes]) -> list[bytes]:
        """ARPC method 1 for each code: one encryption, of a block for each."""
        if any(len(arc) != 2 for arc in arcs):
            raise ValueError("an authorisation response code has 2 bytes")
        size = block_size(self._cipher)
        codes = [int.from_bytes(arqc) ^ int.from_bytes(arc) << 48 for arc in arcs]
        blocks = b"".join([code.to_bytes(8) + bytes(size - 8) for code in codes])
        answers = self._connection.call(
            lambda objects: objects.encrypt(self._key, self._cipher, blocks), session=self._objects
        )
        return [answers[start : start + 8] for start in range(0, len(answers), size)]

    def arpc_method_2(self, *, arqc: bytes, csu: bytes, proprietary: bytes) -> bytes:
        """See ``ArqcSession.arpc_method_2``."""
        if len(csu) != 4 or len(proprietary) > 8:
            raise ValueError("a card status update has 4 bytes, proprietary data at most 8")
        message = arqc + csu + proprietary
        mac = self._connection.call(
            lambda objects: _mac(objects, self._cipher, self._key, self._chain, message),
            session=self._objects,
        )
        return mac[:4]


def verify_arqcs(
    connection: TokenConnection,
    info: KeyInfo,
    master: TokenKey,
    checks: Sequence[ArqcCheck],
    results: list[VerifiedArqc | None],
    positions: Sequence[int],
) -> None:
    """Fills ``results`` at ``positions``, whose checks all name the key ``info``, in the token at ``master``."""
    factors: list[tuple[int, _ArqcFactors]] = []
    udk_factor = udk_factor_of(info.udk_option)
    for position in positions:
        check = checks[position]
        try:
            udk = udk_factor(check.pan, check.psn)
            session = session_factor(info.cipher, check.session_method, check.atc)
        except (ValueError, KeyUsageError, OverflowError):
            continue
        factors.append((position, _ArqcFactors(udk, session, check.data, check.arqc)))

    def proven(objects: TokenObjects, imk: Handle, card: tuple[int, _ArqcFactors]) -> TokenSession | None:
        return _proven_session(connection, objects, info.cipher, imk, card[1])

    for (position, card), answering in _in_shares(connection, info, master, factors, proven):
        if answering is not None:
            results[position] = VerifiedArqc(answering, card.arqc)


def _in_shares(
    connection: TokenConnection,
    info: KeyInfo,
    master: TokenKey,
    cards: Sequence[Card],
    work: Callable[[TokenObjects, Handle, Card], Result],
) -> Iterator[tuple[Card, Result]]:
    """Each card with what ``work`` makes of it; as many cards in a call as a share of its time allows, one at least."""
    begin = 0
    while begin < len(cards):
        some = cards[begin : begin + CARDS_PER_CALL]

        def share(objects: TokenObjects, some: Sequence[Card] = some) -> list[Result]:
            until_s = time.monotonic() + connection.share_s
            key = objects.find_key(master.object_id, info.cipher, kcv=info.kcv)
            done: list[Result] = []
            for card in some:
                done.append(work(objects, key, card))
                if time.monotonic() >= until_s:
                    break
            return done

        done = connection.call(share)
        yield from zip(some, done, strict=False)
        begin += len(done)


def _proven_session(
    connection: TokenConnection, objects: TokenObjects, cipher: Cipher, imk: Handle, card: _ArqcFactors
) -> TokenSession | None:
    # The chain of the retail MAC runs under K1 ‖ K1: the session key's left factor, twice.
    factors = [card.session, card.session[:8] * 2] if cipher is Cipher.TDES else [card.session]
    udk = objects.derive(imk, cipher, card.udk)
    made: list[Handle] = []
    is_proven = False
    try:
        for factor in factors:
            made.append(objects.derive(udk, cipher, factor))
        is_proven = hmac.compare_digest(_mac(objects, cipher, made[0], made[-1], card.data), card.arqc)
    finally:
        objects.discard([udk] if is_proven else [*made, udk])
    if not is_proven:
        return None
    return TokenSession(connection, objects, cipher, key=made[0], chain=made[-1])


def verify_internal_authentications(
    connection: TokenConnection,
    info: KeyInfo,
    master: TokenKey,
    checks: Sequence[InternalAuthenticationCheck],
    results: list[bool],
    positions: Sequence[int],
) -> None:
    """Fills ``results`` at ``positions``, whose checks all name the key ``info``, in the token at ``master``."""
    paths: list[tuple[int, list[bytes], bytes]] = []
    for position in positions:
        check = checks[position]
        try:
            factors = [
                complemented(region_factor(city_region(check.region))),
                complemented(ss_card_factor(check.atr_historical_bytes)),
                complemented(check.process_factor),
            ]
        except ValueError:
            continue
        if len(check.original_data) == ORIGINAL_DATA_SIZE:
            paths.append((position, factors, check.original_data))

    def answer(objects: TokenObjects, province: Handle, path: tuple[int, list[bytes], bytes]) -> bytes:
        _, factors, original_data = path
        return _response(objects, info.cipher, province, factors, original_data)

    for (position, *_), expected in _in_shares(connection, info, master, paths, answer):
        results[position] = hmac.compare_digest(expected, checks[position].response)


def _response(
    objects: TokenObjects, cipher: Cipher, province: Handle, factors: Sequence[bytes], original_data: bytes
) -> bytes:
    """The answer to INTERNAL AUTHENTICATE: see ``internal_authentication.generate_response``."""
    path = [province]
    try:
        for factor in factors:
            path.append(objects.derive(path[-1], cipher, factor))
        if cipher is Cipher.TDES:
            return objects.encrypt(path[-1], cipher, original_data)
        block = objects.encrypt(path[-1], cipher, complemented(original_data))
    finally:
        objects.discard(path[1:])
    return (int.from_bytes(block[:8]) ^ int.from_bytes(block[8:])).to_bytes(8)


def _mac(objects: TokenObjects, cipher: Cipher, key: Handle, chain: Handle, message: bytes) -> bytes:
    """8 bytes: see ``ArqcSession.mac``; for 3DES why the chain has a key of its own, see ``RetailMacContext``."""
    size = block_size(cipher)
    blocks = pad(message, size=size, padding=Padding.ONE_THEN_ZEROS)
    if cipher is not Cipher.TDES:
        return objects.last_chained(key, cipher, blocks)[:ARQC_SIZE]
    last = int.from_bytes(blocks[-size:])
    if len(blocks) > size:
        last ^= int.from_bytes(objects.last_chained(chain, cipher, blocks[:-size]))
    return objects.encrypt(key, cipher, last.to_bytes(size))
