"""Strict mode: card keys, process keys and session keys of AES and 3DES cards exist in the token alone.

Each is derived there into an object of the session and destroyed there; what comes out is a cryptogram or an
answer. Must never leave a derived object behind, and never derive for a batch longer than one call may take.
"""

import hmac
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

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

    __slots__ = ("__weakref__", "_chain", "_cipher", "_connection", "_key", "_objects")

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
        if len(arc) != 2:
            raise ValueError("an authorisation response code has 2 bytes")
        answer = (int.from_bytes(arqc) ^ int.from_bytes(arc) << 48).to_bytes(8)
        block = answer + bytes(block_size(self._cipher) - 8)
        return self._connection.call(
            lambda objects: objects.encrypt(self._key, self._cipher, block)[:8], session=self._objects
        )

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
    for start in range(0, len(factors), CARDS_PER_CALL):
        some = factors[start : start + CARDS_PER_CALL]

        def prove(objects: TokenObjects, some: list[tuple[int, _ArqcFactors]] = some) -> None:
            imk = objects.find_key(master.object_id, info.cipher, kcv=info.kcv)
            for position, card in some:
                session = _proven_session(connection, objects, info.cipher, imk, card)
                if session is not None:
                    results[position] = VerifiedArqc(session, card.arqc)

        connection.call(prove)


def _proven_session(
    connection: TokenConnection, objects: TokenObjects, cipher: Cipher, imk: Handle, card: _ArqcFactors
) -> TokenSession | None:
    # The chain of the retail MAC runs under K1 ‖ K1: the session key's left factor, twice.
    factors = [card.session, card.session[:8] * 2] if cipher is Cipher.TDES else [card.session]
    made: list[Handle] = []
    udk = objects.derive(imk, cipher, card.udk)
    try:
        for factor in factors:
            made.append(objects.derive(udk, cipher, factor))
        mac = _mac(objects, cipher, made[0], made[-1], card.data)
    except BaseException:
        objects.discard(made)
        raise
    finally:
        objects.discard([udk])
    if hmac.compare_digest(mac, card.arqc):
        return TokenSession(connection, objects, cipher, key=made[0], chain=made[-1])
    objects.discard(made)
    return None


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
    for start in range(0, len(paths), CARDS_PER_CALL):
        some = paths[start : start + CARDS_PER_CALL]

        def answer(
            objects: TokenObjects, some: list[tuple[int, list[bytes], bytes]] = some
        ) -> list[tuple[int, bytes]]:
            province = objects.find_key(master.object_id, info.cipher, kcv=info.kcv)
            return [
                (position, _response(objects, info.cipher, province, factors, original_data))
                for position, factors, original_data in some
            ]

        for position, response in connection.call(answer):
            results[position] = hmac.compare_digest(response, checks[position].response)


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
