"""The same cryptograms through a PKCS#11 token: SoftHSM2, in batch and in strict mode, with a token of its own."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.crypto_works import BATCH, Work, arqc_work, make_checks, usable_imks
from crypto.keys import Cipher

SOFTHSM: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL: Final = "onecard-bench"


def softhsm_is_installed() -> bool:
    """Whether SoftHSM2 and its tool are on this machine."""
    return SOFTHSM.exists() and shutil.which("softhsm2-util") is not None


@cache
def token_works() -> dict[str, Work]:
    """ARQC and ARPC of each cipher's cards in batches, in both modes of one token.

    SM4 in batch mode alone: SoftHSM has no SM4, so both modes would measure this process.

    Made once: SoftHSM reads its configuration once per process, so its directory lives as long as that.
    """
    from crypto.key_store.pkcs11_token import Pkcs11KeyStore
    from crypto.key_store.token_settings import TokenMode, TokenSettings

    directory = Path(tempfile.mkdtemp(prefix="onecard-bench-token-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    tokens, configuration, pin_file = directory / "tokens", directory / "softhsm2.conf", directory / "pin"
    tokens.mkdir()
    configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    user_pin = f"{secrets.randbelow(10**8):08d}"
    pin_file.touch(mode=0o600)
    pin_file.write_text(user_pin)
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", "57031864"]
    subprocess.run([*command, "--pin", user_pin], check=True, capture_output=True)
    settings = TokenSettings(module=SOFTHSM, pin_file=pin_file, label=LABEL, timeout_ms=60_000)
    # Both modes work on one list of keys; the card keys that make the cryptograms come out in batch mode only.
    batch = Pkcs11KeyStore.create(directory / "keys", settings)
    strict = Pkcs11KeyStore.open(directory / "keys", replace(settings, mode=TokenMode.STRICT))
    works: dict[str, Work] = {}
    for info in usable_imks(batch):
        checks = make_checks(batch, info, BATCH)
        works[f"ARQC {info.cipher.value} pkcs11 batch"] = arqc_work(batch, [checks])
        if info.cipher is not Cipher.SM4:
            works[f"ARQC {info.cipher.value} pkcs11 strict"] = arqc_work(strict, [checks])
    return works
