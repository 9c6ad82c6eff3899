"""Suite ``crypto``: what one card costs the key store, against pyemv on the same core in the same minutes.

A check is everything an issuer does for one ARQC: master key to card key to session key, the cryptogram, and
the ARPC. Implementations take turns in short slices, and the median slice counts: a busy neighbour on the
machine then disturbs all of them alike.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from cryptography.utils import CryptographyDeprecationWarning

from benchmarks.operations import AIP, COUNTRY_CODE, CURRENCY_CODE, CVR, TVR
from benchmarks.suite_result import SuiteResult
from crypto.blocks import encrypt_ecb
from crypto.cryptogram import ArqcSession, TransactionData
from crypto.diversification import pboc_session_factor
from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck
from crypto.keys import Cipher, KeyInfo, KeyState, KeyUsage

BATCH: Final = 256
_SLICES: Final = 15
_CIPHERS: Final = (Cipher.SM4, Cipher.TDES, Cipher.AES)
_APPROVED: Final = b"00"

Work = Callable[[], None]


def make_checks(store: KeyStore, info: KeyInfo, count: int) -> list[ArqcCheck]:
    """Cryptograms of as many cards, each made with that card's own key."""
    cards = [(f"62170000{number:011d}", "00") for number in range(count)]
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
        if info.usage is KeyUsage.IMK_AC and info.state is KeyState.ACTIVE and info.cipher in _CIPHERS
    ]
    by_cipher = {info.cipher: info for info in infos}
    return [by_cipher[cipher] for cipher in _CIPHERS if cipher in by_cipher]


def store_works(store: KeyStore) -> dict[str, Work]:
    """The key store's checks, singly and in batches, for each cipher. Each work is ``BATCH`` checks."""
    works: dict[str, Work] = {}
    for info in usable_imks(store):
        checks = make_checks(store, info, BATCH)
        works[f"{info.cipher.value} singly"] = _work(store, [[check] for check in checks])
        works[f"{info.cipher.value} in batches of {BATCH}"] = _work(store, [checks])
    return works


def pyemv_work() -> Work | None:
    """The same chain for 3DES with pyemv, or None when it is not installed."""
    try:
        from pyemv import ac, kd
    except ImportError:
        return None
    imk = bytes(range(16))
    data = bytes(37)
    atcs = [atc.to_bytes(2) + bytes(6) for atc in range(1, BATCH + 1)]
    pans = [f"62170000{number:011d}" for number in range(BATCH)]

    def check(pan: str, diversifier: bytes) -> bytes:
        session_key = kd.derive_common_sk(kd.derive_icc_mk_a(imk, pan, "00"), diversifier)
        arqc = ac.generate_ac(session_key, data)
        arpc: bytes = ac.generate_arpc_1(session_key, arqc, _APPROVED)
        return arpc

    def work() -> None:
        for pan, diversifier in zip(pans, atcs, strict=True):
            check(pan, diversifier)

    return work


def time_alternating(works: dict[str, Work], *, seconds: float) -> dict[str, float]:
    """Runs the works in turns and returns µs of CPU per check of each one's median slice.

    Args:
        works: each does ``BATCH`` checks per call.
        seconds: for each work.
    """
    slices: dict[str, list[float]] = {name: [] for name in works}
    slice_s = seconds / _SLICES
    for _ in range(_SLICES):
        for name, work in works.items():
            # CPU time: what a neighbour takes of the core is not this work's cost.
            started, calls = time.process_time(), 0
            while (used_s := time.process_time() - started) < slice_s or not calls:
                work()
                calls += 1
            slices[name].append(used_s / (calls * BATCH) * 1e6)
    return {name: median(values) for name, values in slices.items()}


def run_crypto(*, seconds: float) -> SuiteResult:
    """Measures every cipher of a fresh software key store, and the baseline."""
    from crypto.key_store.software import SoftwareKeyStore

    with tempfile.TemporaryDirectory(prefix="onecard-bench-keys-") as name:
        store = SoftwareKeyStore.create(Path(name) / "keys")
        works = store_works(store)
    baseline = pyemv_work()
    if baseline is not None:
        works["pyemv 3DES"] = baseline
    with warnings.catch_warnings():
        # pyemv asks for 3DES where cryptography no longer keeps it; the warnings are its own.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        times = time_alternating(works, seconds=max(0.1, seconds / len(works)))
    best = min(times.values())
    return SuiteResult(
        suite="crypto",
        unit="checks",
        rate_per_s=1e6 / best,
        seconds=seconds,
        facts={"us_per_check": times, "baseline_us": times.get("pyemv 3DES"), "batch": BATCH},
    )


def _work(store: KeyStore, batches: Sequence[Sequence[ArqcCheck]]) -> Work:
    def work() -> None:
        for batch in batches:
            for verified in store.verify_arqcs(batch):
                if verified is None:
                    raise AssertionError("the bench's own cryptogram was refused")
                verified.arpc(_APPROVED)

    return work
