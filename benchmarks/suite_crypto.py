"""Suite ``crypto``: what card cryptography costs one core, beside pyemv, psec and the straight way.

Implementations take turns in short slices, and the median slice counts: a busy neighbour on the machine then disturbs
all of them alike.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Final

from cryptography.utils import CryptographyDeprecationWarning

from benchmarks.crypto_works import (
    BATCH,
    Work,
    arqc_works,
    dukpt_works,
    pin_works,
    psec_pin_work,
    pyemv_arqc_work,
)
from benchmarks.suite_result import SuiteResult
from benchmarks.token_works import softhsm_is_installed, token_works
from server.workers import settle_collector

_SLICES: Final = 15
PYEMV: Final = "ARQC TDES with pyemv"
PSEC: Final = "PIN ISO_0 translated with psec"
# Ratios, each of a baseline's time to ours: above 1 is faster.
RATIOS: Final = {
    "ARQC TDES in batches / pyemv": (PYEMV, "ARQC TDES in batches"),
    "PIN ISO_0 / psec": (PSEC, "PIN ISO_0 translated"),
    "PIN SM4_0 / psec ISO_0": (PSEC, "PIN SM4_0 translated"),
    "DUKPT TDES / straight": ("DUKPT TDES straight", "DUKPT TDES in batches"),
    "DUKPT AES / straight": ("DUKPT AES straight", "DUKPT AES in batches"),
    "DUKPT SM4 / straight": ("DUKPT SM4 straight", "DUKPT SM4 in batches"),
}


def time_alternating(works: dict[str, Work], *, seconds: float) -> dict[str, float]:
    """Runs the works in turns and returns µs of CPU per item of each one's median slice.

    Args:
        works: each does ``BATCH`` items per call.
        seconds: for each work.
    """
    slices: dict[str, list[float]] = {name: [] for name in works}
    slice_s = seconds / _SLICES
    for _ in range(_SLICES):
        for name, work in works.items():
            # CPU time, of all threads: what a neighbour takes of the core is not this work's cost.
            started, calls = time.process_time(), 0
            while (used_s := time.process_time() - started) < slice_s or not calls:
                work()
                calls += 1
            slices[name].append(used_s / (calls * BATCH) * 1e6)
    return {name: median(values) for name, values in slices.items()}


def run_crypto(*, seconds: float) -> SuiteResult:
    """Measures a fresh software key store, a token where SoftHSM2 is installed, and the baselines."""
    from crypto.key_store.software import SoftwareKeyStore

    with tempfile.TemporaryDirectory(prefix="onecard-bench-keys-") as name, warnings.catch_warnings():
        # The baselines ask for 3DES where cryptography no longer keeps it; the warnings are their own.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        store = SoftwareKeyStore.create(Path(name) / "software")
        works = arqc_works(store) | {PYEMV: pyemv_arqc_work()} | pin_works(store) | {PSEC: psec_pin_work()}
        works |= dukpt_works()
        if softhsm_is_installed():
            works |= token_works()
        # As in the process that will serve; for the baselines too.
        settle_collector()
        times = time_alternating(works, seconds=max(0.1, seconds / len(works)))
    return SuiteResult(
        suite="crypto",
        unit="checks",
        rate_per_s=1e6 / times["ARQC SM4 in batches"],
        seconds=seconds,
        facts={
            "us_each": times,
            "ratios": {name: times[baseline] / times[ours] for name, (baseline, ours) in RATIOS.items()},
            "batch": BATCH,
            "pkcs11": "SoftHSM2" if softhsm_is_installed() else "not measured: softhsm2 is not installed",
        },
    )
