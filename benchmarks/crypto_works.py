"""What the suite ``crypto`` times: each work does ``BATCH`` items per call, over keys and cards of its own.

A work of ours stands beside a baseline that does the same with another library, or the straight way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from benchmarks.operations import AIP, COUNTRY_CODE, CURRENCY_CODE, CVR, TVR
from crypto.blocks import encrypt_ecb
from crypto.cryptogram import ArqcSession, TransactionData
from crypto.diversification import pboc_session_factor
from crypto.dukpt_host import DukptHost, derive_working_key
from crypto.dukpt_tdes import DukptKeyUse
from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin, PinTranslation
from crypto.keys import Cipher, Key, KeyInfo, KeyState, KeyUsage
from crypto.pin_block import Pin, PinBlockFormat, encrypt_pin_blocks

BATCH: Final = 256
CIPHERS: Final = (Cipher.SM4, Cipher.TDES, Cipher.AES)
_APPROVED: Final = b"00"
_DUKPT_TERMINALS: Final = 1_000

Work = Callable[[], None]


def pans(count: int) -> list[str]:
    """Card numbers of 19 digits."""
    return [f"62170000{number:011d}" for number in range(count)]


def make_checks(store: KeyStore, info: KeyInfo, count: int) -> list[ArqcCheck]:
    """Cryptograms of as many cards, each made with that card's own key; the store must hand card keys out."""
    cards = [(pan, "00") for pan in pans(count)]
    checks = []
    for atc, ((pan, psn), udk) in enumerate(
        zip(cards, store.diversify_udks(info.ref, cards), strict=True), 1
    ):
        data = TransactionData(
            amount_authorized_minor=1_000 + atc,
            amount_other_minor=0,
            terminal_country_code=COUNTRY_CODE,
            tvr=TVR,
            transaction_currency_code=CURRENCY_CODE,
            transaction_date="260101",
            transaction_type="00",
            unpredictable_number=os.urandom(4),
            aip=AIP,
            atc=atc,
            cvr=CVR,
        ).encode()
        session_key = encrypt_ecb(udk, pboc_session_factor(atc))
        arqc = ArqcSession(info.cipher, session_key).mac(data)
        checks.append(ArqcCheck(key=info.ref, pan=pan, psn=psn, data=data, atc=atc, arqc=arqc))
    return checks


def usable_imks(store: KeyStore) -> list[KeyInfo]:
    """The active issuer master keys, one for each cipher the store has one for."""
    infos = [
        info
        for info in store.describe()
        if info.usage is KeyUsage.IMK_AC and info.state is KeyState.ACTIVE and info.cipher in CIPHERS
    ]
    by_cipher = {info.cipher: info for info in infos}
    return [by_cipher[cipher] for cipher in CIPHERS if cipher in by_cipher]


def arqc_work(store: KeyStore, batches: Sequence[Sequence[ArqcCheck]]) -> Work:
    """Master key to card key to session key, the cryptogram, and the ARPC."""

    def work() -> None:
        for batch in batches:
            for verified in store.verify_arqcs(batch):
                if verified is None:
                    raise AssertionError("the bench's own cryptogram was refused")
                verified.arpc(_APPROVED)

    return work


def arqc_works(store: KeyStore) -> dict[str, Work]:
    """The key store's checks, singly and in batches, for each cipher."""
    works: dict[str, Work] = {}
    for info in usable_imks(store):
        checks = make_checks(store, info, BATCH)
        works[f"ARQC {info.cipher.value} singly"] = arqc_work(store, [[check] for check in checks])
        works[f"ARQC {info.cipher.value} in batches"] = arqc_work(store, [checks])
    return works


def pyemv_arqc_work() -> Work:
    """The same chain for 3DES with pyemv."""
    from pyemv import ac, kd

    imk = bytes(range(16))
    data = bytes(37)
    cards = list(zip(pans(BATCH), [atc.to_bytes(2) + bytes(6) for atc in range(1, BATCH + 1)], strict=True))

    def work() -> None:
        for pan, diversifier in cards:
            session_key = kd.derive_common_sk(kd.derive_icc_mk_a(imk, pan, "00"), diversifier)
            ac.generate_arpc_1(session_key, ac.generate_ac(session_key, data), _APPROVED)

    return work


def pin_works(store: KeyStore) -> dict[str, Work]:
    """PIN blocks moved between two keys of a zone, for each cipher."""
    plane = DataPlane(store)
    works: dict[str, Work] = {}
    for name, layout in (
        ("zpk-sm4", PinBlockFormat.SM4_0),
        ("zpk-tdes", PinBlockFormat.ISO_0),
        ("zpk-aes", PinBlockFormat.ISO_4),
    ):
        ref = store.active(name)
        pins = [(Pin(f"{number:06d}"), pan) for number, pan in enumerate(pans(BATCH))]
        blocks = encrypt_pin_blocks(partial(store.encrypt_under_master, ref), pins, format=layout)
        translations = [
            PinTranslation(
                source=EncryptedPin(key=ref, ksn=b"", format=layout, block=block, pan=pan),
                target_key=ref,
                target_format=layout,
            )
            for block, (_, pan) in zip(blocks, pins, strict=True)
            if isinstance(block, bytes)
        ]
        works[f"PIN {layout.value} translated"] = _pin_work(plane, translations)
    return works


def psec_pin_work() -> Work:
    """Format 0 to format 0 under 3DES with psec: decrypt, decode, encode, encrypt."""
    from psec import des, pinblock

    source, target = bytes(range(16)), bytes(range(16, 32))
    cards = [
        (des.encrypt_tdes_ecb(source, pinblock.encode_pinblock_iso_0(f"{number:06d}", pan)), pan)
        for number, pan in enumerate(pans(BATCH))
    ]

    def work() -> None:
        for block, pan in cards:
            pin = pinblock.decode_pinblock_iso_0(des.decrypt_tdes_ecb(source, block), pan)
            des.encrypt_tdes_ecb(target, pinblock.encode_pinblock_iso_0(pin, pan))

    return work


def dukpt_works() -> dict[str, Work]:
    """Working keys of terminals that count upward, in batches and, as the baseline, the straight way."""
    works: dict[str, Work] = {}
    for cipher, size in ((Cipher.TDES, 10), (Cipher.AES, 12), (Cipher.SM4, 12)):
        bdk = Key(cipher, KeyUsage.BDK, os.urandom(16))
        works[f"DUKPT {cipher.value} in batches"] = _dukpt_batches(DukptHost(bdk), _counting(size))
        works[f"DUKPT {cipher.value} straight"] = _dukpt_straight(bdk, _counting(size))
    return works


def _pin_work(plane: DataPlane, translations: Sequence[PinTranslation]) -> Work:
    def work() -> None:
        for block in plane.translate_pins(translations):
            if not isinstance(block, bytes):
                raise AssertionError("the bench's own PIN block was refused")

    return work


def _counting(size: int) -> Iterator[bytes]:
    """Key serial numbers of many terminals, each counting upward from a counter of its own."""
    limit = 10 if size == 10 else 16
    for step in itertools.count(1):
        for terminal in range(_DUKPT_TERMINALS):
            counter = 17 * terminal + step
            if counter.bit_count() <= limit:
                yield (terminal << 32 | counter).to_bytes(size)


def _dukpt_batches(host: DukptHost, ksns: Iterator[bytes]) -> Work:
    def work() -> None:
        for key in host.working_keys([(ksn, DukptKeyUse.PIN) for ksn in itertools.islice(ksns, BATCH)]):
            if not isinstance(key, Key):
                raise AssertionError("the bench's own key serial number was refused")

    return work


def _dukpt_straight(bdk: Key, ksns: Iterator[bytes]) -> Work:
    def work() -> None:
        for ksn in itertools.islice(ksns, BATCH):
            derive_working_key(bdk, ksn=ksn, use=DukptKeyUse.PIN)

    return work
