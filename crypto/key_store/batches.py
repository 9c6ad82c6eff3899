"""Checks of many cards at once, over any backend that can encrypt blocks under a master key.

Card keys of a batch come out of one ECB call under their master key (0.1 µs per SM4 card instead of 3.7); a
card then costs two contexts, one under its own key and one under its session key, which also answers it. Must
never let one card's fault decide another's result, and never keep a card's key.
"""

import hmac
from collections.abc import Sequence
from typing import Protocol

from crypto.blocks import ECB_OPENERS
from crypto.cryptogram import ArqcSession
from crypto.diversification import (
    SessionMethod,
    city_region,
    complemented,
    pboc_session_factor,
    region_factor,
    session_factor,
    ss_card_factor,
    udk_factor_of,
)
from crypto.errors import KEY_REFUSALS, KeyUsageError
from crypto.internal_authentication import respond_under
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.keys import KeyInfo, KeyRef, KeyUsage

PBOC = SessionMethod.PBOC


class MasterKeys(Protocol):
    """The primitives a backend supplies."""

    def require_usable(self, ref: KeyRef, *usages: KeyUsage) -> KeyInfo:
        """The key's description, if it has one of these usages and may verify; else one of the key errors."""
        ...

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """ECB over whole blocks in one call, for the usages of ``lifecycle.RESIDENT_USAGES`` in a usable state.

        ``KeyUsageError`` also for masters whose card keys do not leave their token.
        """
        ...

    def decrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """Inverse of ``encrypt_under_master``, for PIN encryption keys alone."""
        ...

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        """ECB over whole blocks under the city key below a province master key."""
        ...


def verify_arqcs(masters: MasterKeys, checks: Sequence[ArqcCheck]) -> list[VerifiedArqc | None]:
    """See ``KeyStore.verify_arqcs``."""
    results: list[VerifiedArqc | None] = [None] * len(checks)
    by_key: dict[KeyRef, list[int]] = {}
    for position, check in enumerate(checks):
        by_key.setdefault(check.key, []).append(position)
    for ref, positions in by_key.items():
        try:
            info = masters.require_usable(ref, KeyUsage.IMK_AC)
            _verify_arqcs_under(masters, info, ref, checks, positions, results)
        except KEY_REFUSALS:
            # Also when another thread destroys the key between the two calls: the group stays unproven.
            continue
    return results


def _verify_arqcs_under(
    masters: MasterKeys,
    info: KeyInfo,
    ref: KeyRef,
    checks: Sequence[ArqcCheck],
    positions: list[int],
    results: list[VerifiedArqc | None],
) -> None:
    """Fills ``results`` at ``positions``, whose checks all name the key ``ref``, described by ``info``."""
    udk_factor = udk_factor_of(info.udk_option)
    cipher = info.cipher
    well_formed: list[int] = []
    factors: list[bytes] = []
    for position in positions:
        check = checks[position]
        try:
            factors.append(udk_factor(check.pan, check.psn))
        except ValueError:
            continue
        well_formed.append(position)
    udks = masters.encrypt_under_master(ref, b"".join(factors))
    open_card_key = ECB_OPENERS[cipher]
    for start, position in zip(range(0, len(udks), 16), well_formed, strict=True):
        check = checks[position]
        try:
            if check.session_method is PBOC:
                factor = pboc_session_factor(check.atc)
            else:
                factor = session_factor(cipher, check.session_method, check.atc)
        except (KeyUsageError, OverflowError):
            continue
        session = ArqcSession(cipher, open_card_key(udks[start : start + 16]).update(factor))
        if hmac.compare_digest(session.mac(check.data), check.arqc):
            results[position] = VerifiedArqc(session, check.arqc)


def verify_internal_authentications(
    masters: MasterKeys, checks: Sequence[InternalAuthenticationCheck]
) -> list[bool]:
    """See ``KeyStore.verify_internal_authentications``."""
    results = [False] * len(checks)
    by_city: dict[tuple[KeyRef, str], list[tuple[int, bytes]]] = {}
    for position, check in enumerate(checks):
        try:
            city = city_region(check.region)
            factor = complemented(ss_card_factor(check.atr_historical_bytes))
        except ValueError:
            continue
        by_city.setdefault((check.key, city), []).append((position, factor))
    for (ref, city), cards in by_city.items():
        try:
            info = masters.require_usable(ref, KeyUsage.SS_AUTHENTICATION_PROVINCE)
            card_keys = masters.encrypt_under_city(ref, city, b"".join([factor for _, factor in cards]))
        except KEY_REFUSALS:
            continue
        for start, (position, _) in zip(range(0, len(card_keys), 16), cards, strict=True):
            check = checks[position]
            try:
                expected = respond_under(
                    info.cipher,
                    card_keys[start : start + 16],
                    process_factor=check.process_factor,
                    original_data=check.original_data,
                )
            except ValueError:
                continue
            results[position] = hmac.compare_digest(expected, check.response)
    return results


def city_key_value(masters: MasterKeys, ref: KeyRef, city: str) -> bytes:
    """A city key's bytes, for the backend's own bounded cache of contexts."""
    return masters.encrypt_under_master(ref, complemented(region_factor(city)))
