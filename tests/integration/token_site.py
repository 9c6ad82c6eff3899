"""A site that keeps its keys in a SoftHSM token of its own: the token, the bureau beside it, and the core's callers.

A process loads SoftHSM once, with one configuration. So the bureau, which makes cards and PIN blocks under the token's
keys, is a process of its own, and whoever runs the tests never loads the module.
"""

import contextlib
import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from core_under_test import CALL_S, Caller, Core, card_issue, deposit, distant_cutoff
from onecard.v1 import common_pb2
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import SM4_0, PinPad, format_name, key, zpk
from running_instance import Instance
from virtual_card import VirtualCard

from crypto.diversification import city_region, complemented, ss_card_factor
from crypto.key_store.checks import CardKeys
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.token_settings import TokenSettings
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.pin_block import Pin, PinBlockFormat, decrypt_pin_blocks, encrypt_pin_blocks
from server.cards.directory import CardCipher

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL = "site"
USER_PIN, WRONG_PIN = "93617240", "48205917"
LOCKS = Path(__file__).parents[1] / "unit" / "crypto" / "token_scene.py"
ROOT = Path(__file__).parents[2]
# Long enough for a busy machine, short enough to be waited for.
TIMEOUT_MS = 2_000
BUREAU_S = 30.0


class TokenSite:
    """A directory with a token, its PIN and the core's data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.tokens = root / "tokens"
        self.tokens.mkdir()
        self.configuration = root / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        self.pin_file = root / "pin"
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(f"{USER_PIN}\n")
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
        subprocess.run(
            [*command, "--so-pin", "57031864", "--pin", USER_PIN],
            check=True,
            capture_output=True,
            env=os.environ | {"SOFTHSM2_CONF": str(self.configuration)},
        )

    def serve(self, *flags: str, data_dir: Path | None = None) -> Instance:
        """Starts the core on this token; later flags win."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SOFTHSM2_CONF", str(self.configuration))
            return Instance(
                data_dir or self.data_dir,
                *("--key-store", "pkcs11", "--pkcs11-module", str(SOFTHSM)),
                *("--pkcs11-token-label", LABEL, "--pkcs11-pin-file", str(self.pin_file)),
                *("--key-store-timeout-ms", str(TIMEOUT_MS), "--business-day-cutoff", distant_cutoff()),
                *flags,
                workers=2,
            )

    @contextlib.contextmanager
    def without_token(self) -> Iterator[None]:
        """The token is taken away, and is back afterwards."""
        away = self.tokens.rename(self.tokens.with_name("away"))
        try:
            yield
        finally:
            away.rename(self.tokens)

    @contextlib.contextmanager
    def slow_token(self) -> Iterator[None]:
        """SoftHSM waits for its files, which another process has locked."""
        holder = subprocess.Popen(
            [sys.executable, str(LOCKS), "hold", str(self.tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait()
            holder.stdout.close()


class TokenBureau:
    """Personalises cards and makes PIN blocks under the keys of a site's token.

    Stands where tests have a software key store: it gives what ``VirtualCard`` and ``Core`` ask of one.
    """

    def __init__(self, site: TokenSite) -> None:
        settings = TokenSettings(module=SOFTHSM, pin_file=site.pin_file, label=LABEL, timeout_ms=10_000)
        self._process = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open,
            initargs=(site.data_dir / "keys", settings, str(site.configuration)),
        )

    def close(self) -> None:
        self._process.shutdown()

    def active(self, name: str) -> KeyRef:
        return self._ask(_active, name)

    def identification_codes(self, _ref: KeyRef) -> "TokenBureau":
        return self

    def generate(self, *, issuing_region: str, chip_serial: bytes) -> str:
        return self._ask(_identification_code, issuing_region, chip_serial)

    def blind_index(self, _ref: KeyRef) -> "TokenBureau":
        return self

    def of(self, value: str, *, kind: str) -> bytes:
        return self._ask(_blind_index, value, kind)

    def personalise(self, **facts: Any) -> CardKeys:
        cipher, udk, ss_key = self._ask(_card_keys, facts)
        return CardKeys(
            udk_ac=Key(cipher, KeyUsage.UDK_AC, udk),
            ss_authentication=Key(cipher, KeyUsage.SS_AUTHENTICATION_CARD, ss_key),
        )

    def pin_block(self, digits: str, pan: str, *, layout: int, ref: KeyRef) -> bytes:
        return self._ask(_pin_block, digits, pan, format_name(layout), ref)

    def opened(self, block: bytes, pan: str, *, layout: int, ref: KeyRef) -> str:
        return self._ask(_pin_digits, block, pan, format_name(layout), ref)

    def _ask(self, function: Any, *arguments: Any) -> Any:
        return self._process.submit(function, *arguments).result(BUREAU_S)


class TokenPinPad(PinPad):
    """A PIN pad whose zone keys do not leave the token."""

    store: Any

    def pin(
        self, digits: str, pan: str, *, layout: int = SM4_0, name: str = "", version: int = 0
    ) -> pb.EncryptedPin:
        name = name or zpk(layout)
        block = self.store.pin_block(digits, pan, layout=layout, ref=self.ref(name, version))
        return pb.EncryptedPin(block=block, format=layout, key=key(name, version))

    def opened(self, block: bytes, pan: str, *, layout: int = SM4_0, name: str = "") -> str:
        return self.store.opened(block, pan, layout=layout, ref=self.ref(name or zpk(layout)))


class TokenCore(Core):
    """A core whose keys are in a token; its cards are issued over gRPC like any other."""

    # One count for all cores on a database: no card is issued twice.
    _numbers = itertools.count()

    def __init__(self, instance: Instance, facts: dict[str, Any], *, dsn: str, bureau: TokenBureau) -> None:
        self.instance = instance
        self.data_dir = instance.data_dir
        self.facts = facts
        self.dsn = dsn
        self.address = f"localhost:{facts['port']}"
        self.store: Any = bureau
        self.database = None
        self._callers = []

    async def issued_card(self, cipher: CardCipher, bank: Caller) -> VirtualCard:
        """A new card in use, with money on it."""
        card = self.unissued_card(cipher=cipher)
        await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
        await self.set_status(card, common_pb2.CARD_STATUS_NORMAL)
        assert (await bank.authorize(deposit(card, 10_000))).response_code == "00"
        return card

    async def counters(self, card: VirtualCard) -> tuple[int, int]:
        """The highest ATC the core has seen of the card, and the PIN tries it has counted."""
        statement = "SELECT atc_highest, pin_tries FROM card_states WHERE card_id = $1"
        return tuple(await self.database.fetchrow(statement, await self.card_id(card)))


# What follows runs in the bureau's process.

_opened: list[Pkcs11KeyStore] = []


def _open(directory: Path, settings: TokenSettings, configuration: str) -> None:
    os.environ["SOFTHSM2_CONF"] = configuration
    _opened.append(Pkcs11KeyStore.open(directory, settings))


def _store() -> Pkcs11KeyStore:
    (store,) = _opened
    store.refresh()
    return store


def _active(name: str) -> KeyRef:
    return _store().active(name)


def _identification_code(issuing_region: str, chip_serial: bytes) -> str:
    store = _store()
    codes = store.identification_codes(store.active("identification-code"))
    return codes.generate(issuing_region=issuing_region, chip_serial=chip_serial)


def _blind_index(value: str, kind: str) -> bytes:
    store = _store()
    return store.blind_index(store.active("blind-index")).of(value, kind=kind)


def _card_keys(facts: dict[str, Any]) -> tuple[Cipher, bytes, bytes]:
    """Values, because keys do not travel between processes: the bureau writes them into the chip."""
    store = _store()
    (udk,) = store.diversify_udks(facts["imk"], [(facts["pan"], facts["psn"])])
    factor = complemented(ss_card_factor(facts["atr_historical_bytes"]))
    ss_key = store.encrypt_under_city(facts["ss_master"], city_region(facts["region"]), factor)
    return udk.cipher, udk.value, ss_key


def _pin_block(digits: str, pan: str, layout: str, ref: KeyRef) -> bytes:
    encrypt = partial(_store().encrypt_under_master, ref)
    (block,) = encrypt_pin_blocks(encrypt, [(Pin(digits), pan)], format=PinBlockFormat[layout])
    assert isinstance(block, bytes)
    return block


def _pin_digits(block: bytes, pan: str, layout: str, ref: KeyRef) -> str:
    decrypt = partial(_store().decrypt_under_master, ref)
    (pin,) = decrypt_pin_blocks(decrypt, [(block, pan)], format=PinBlockFormat[layout])
    assert isinstance(pin, Pin)
    return pin.digits
