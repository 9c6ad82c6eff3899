"""Scenes with a token that is wrong, slow or lost, each played in a process of its own: ``python token_scene.py NAME``.

A process loads SoftHSM once, with one configuration, and a token that is gone would be gone for every other test.
The token is taken away by moving SoftHSM's directory, and made slow by locking its files, on which SoftHSM waits.
"""

import contextlib
import ctypes
import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from crypto_virtual_card import make_answer, make_check
from key_store_bureau import Bureau

from crypto.card_code import CardCodeUse
from crypto.errors import KeyStoreUnavailableError
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_settings import TokenMode, TokenSettings
from crypto.keys import KeyUsage

USER_PIN = "93617240"
WAIT_MAX_S = 30.0


class Scene:
    """A token of its own with a store in it."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.tokens = directory / "tokens"
        self.tokens.mkdir()
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        initialise = ["softhsm2-util", "--init-token", "--free", "--label", "scene", "--so-pin", "57031864"]
        subprocess.run([*initialise, "--pin", USER_PIN], check=True, capture_output=True)
        self.pin_file = directory / "pin"
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(USER_PIN)
        self.keys = directory / "keys"
        self.settings = replace(
            TokenSettings(
                module=Path("/usr/lib/softhsm/libsofthsm2.so"), pin_file=self.pin_file, label="scene"
            ),
            **changes,
        )

    def take_away(self) -> None:
        self.tokens.rename(self.tokens.with_name("away"))

    def bring_back(self) -> None:
        self.tokens.with_name("away").rename(self.tokens)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """SoftHSM waits for these locks, which another process must hold."""
        holder = subprocess.Popen(
            [sys.executable, __file__, "hold", str(self.tokens)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()
        holder.wait()


def hold(directory: str) -> None:
    files = [path.open("r+") for path in Path(directory).glob("*/*")]
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_EX)
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except KeyStoreUnavailableError as error:
        text = str(error)
        assert "\n" not in text
        assert USER_PIN not in text
        return text
    raise AssertionError("was not refused")


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_MAX_S
    while not condition():
        assert time.monotonic() < deadline_s, "did not come about"
        time.sleep(0.05)


def every_card_operation(store: Pkcs11KeyStore) -> dict[str, Callable[[], object]]:
    """PIN and chip operations, on keys in the token and on keys in memory."""
    operations: dict[str, Callable[[], object]] = {}
    for algorithm in ("sm4", "tdes", "aes"):
        check, answer = (make(Bureau(store), algorithm) for make in (make_check, make_answer))
        zpk = store.active(f"zpk-{algorithm}")
        operations |= {
            f"cryptogram {algorithm}": lambda check=check: store.verify_arqcs([check]),
            f"answer {algorithm}": lambda answer=answer: store.verify_internal_authentications([answer]),
            f"encryption {algorithm}": lambda zpk=zpk: store.encrypt_under_master(zpk, bytes(16)),
            f"decryption {algorithm}": lambda zpk=zpk: store.decrypt_under_master(zpk, bytes(16)),
        }
    operations["message"] = lambda: store.open_key(store.active("mac-sm4"), KeyUsage.MAC_CMAC)
    operations["terminal"] = lambda: store.open_key(store.active("bdk-aes"), KeyUsage.BDK)
    return operations


def everything_else(store: Pkcs11KeyStore) -> Callable[[], None]:
    """What goes on without the token."""
    index = store.blind_index(store.active("blind-index"))
    codes = store.card_codes(store.active("card-code"))
    challenges = store.challenges(store.active("challenge"))
    sealer = store.sealer(store.active("sealing"))
    digest = store.request_digest(store.active("request-digest"))
    identification = store.identification_codes(store.active("identification-code"))

    def use() -> None:
        index.of("1", kind="pan")
        digest.of(b"request")
        codes.open(codes.issue(card_alias=bytes(8), use=CardCodeUse.PAYMENT, issued_at_s=1))
        token = challenges.issue(participant="bank", issued_at_s=1).token
        challenges.open(token, participant="bank")
        sealed = sealer.seal(b"name", column="cards.name", row_id="1")
        assert sealer.open(sealed, column="cards.name", row_id="1") == b"name"
        identification.verify(identification.generate(issuing_region="360100", chip_serial=bytes(4)))
        assert not store.refresh()
        store.describe()

    return use


def lost(scene: Scene) -> None:
    store = Pkcs11KeyStore.create(scene.keys, scene.settings)
    operations, others = every_card_operation(store), everything_else(store)
    for call in operations.values():
        call()
    others()
    scene.take_away()
    assert "lost" in refused(operations["cryptogram tdes"])
    assert store.is_lost
    for call in operations.values():
        refused(call)
    others()
    scene.bring_back()
    until(lambda: not store.is_lost)
    for call in operations.values():
        call()
    others()
    assert all(store.verify_arqcs([make_check(Bureau(store), name) for name in ("sm4", "tdes", "aes")]))
    # Administration works too: the session that came back is a full one.
    assert store.rotate("imk-ac-aes").version == 2


def memory(scene: Scene) -> None:
    """Keys in memory are used no longer than a second after the token's last answer."""
    store = Pkcs11KeyStore.create(scene.keys, scene.settings)
    check = make_check(Bureau(store), "sm4")
    assert store.verify_arqcs([check])[0] is not None
    scene.take_away()
    time.sleep(1.1)
    refused(lambda: store.verify_arqcs([check]))
    refused(lambda: store.open_key(store.active("mac-sm4"), KeyUsage.MAC_CMAC))
    scene.bring_back()
    until(lambda: not store.is_lost)
    assert store.verify_arqcs([check])[0] is not None


def session(scene: Scene) -> None:
    """A session key that was lost with its token answers no card, and never a wrong one."""
    store = Pkcs11KeyStore.create(scene.keys, scene.settings)
    check = make_check(Bureau(store), "tdes")
    (before,) = store.verify_arqcs([check])
    assert before is not None
    expected = before.arpc(b"00")
    before.answer_ahead([b"05", b"51"])
    prepared = [before.arpc(b"05"), before.arpc(b"51")]
    scene.take_away()
    refused(lambda: store.verify_arqcs([check]))
    refused(lambda: before.arpc(b"00"))
    assert [before.arpc(b"05"), before.arpc(b"51")] == prepared
    until(lambda: store._connection._objects is None)
    scene.bring_back()
    until(lambda: not store.is_lost)
    refused(lambda: before.arpc(b"00"))
    (after,) = store.verify_arqcs([check])
    assert after is not None
    assert after.arpc(b"00") == expected
    assert [after.arpc(b"05"), after.arpc(b"51")] == prepared


def sessions(scene: Scene) -> None:
    """A token that is there but does not know the storage key is reconnected to again and again, in two sessions."""
    store = Pkcs11KeyStore.create(scene.keys, scene.settings, names=["imk-ac-aes"])
    connection = store._connection
    library = ctypes.CDLL(str(scene.settings.module))

    def opened() -> int:
        told = (ctypes.c_ulong * 8)()
        return sum(library.C_GetSessionInfo(ctypes.c_ulong(handle), told) == 0 for handle in range(1, 1000))

    def reconnected(_: object = None) -> int:
        connection._reconnect()
        return opened()

    counts = [connection._thread.submit(reconnected).result(WAIT_MAX_S) for _ in range(5)]
    assert counts == [2] * 5, counts
    # Log-ins that this process lost sight of cost one session, not one each time.
    connection._module.logins.clear()
    counts = [connection._thread.submit(reconnected).result(WAIT_MAX_S) for _ in range(5)]
    assert len(set(counts)) == 1, counts


def slow(scene: Scene) -> None:
    store = Pkcs11KeyStore.create(scene.keys, scene.settings)
    operations, others = every_card_operation(store), everything_else(store)
    quick = replace(scene.settings, timeout_ms=150)
    store._connection._timeout_s = quick.timeout_ms / 1000
    with scene.slow():
        assert "did not answer within" in refused(operations["cryptogram aes"])
        assert store.is_lost
        for call in operations.values():
            refused(call)
        others()
    # By itself: nobody asks in between.
    until(lambda: not store.is_lost)
    for call in operations.values():
        call()


def changed_pin(scene: Scene) -> None:
    """A PIN that is refused is not tried again: three refusals lock a token."""
    tries: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tries.append(record.getMessage())

    logging.getLogger("crypto.key_store").addHandler(Lines())
    store = Pkcs11KeyStore.create(scene.keys, scene.settings)
    scene.pin_file.write_text("00000000")
    scene.take_away()
    refused(lambda: store.encrypt_under_master(store.active("zpk-aes"), bytes(16)))
    until(lambda: store._connection._objects is None)
    scene.bring_back()
    until(lambda: any("refuses the PIN" in line for line in tries))
    time.sleep(2.5)
    assert store.is_lost
    assert len([line for line in tries if "refuses the PIN" in line]) == 1
    assert not any("00000000" in line for line in tries)


def refusals(scene: Scene) -> None:
    """What cannot be opened is told in one line that says which thing is wrong."""
    settings = scene.settings

    def open_with(**changes: object) -> Callable[[], object]:
        return lambda: Pkcs11KeyStore.open(scene.keys, replace(settings, **changes))

    def create_with(**changes: object) -> Callable[[], object]:
        return lambda: Pkcs11KeyStore.create(scene.keys, replace(settings, **changes))

    assert "cannot read" in refused(open_with())
    for given in (create_with, open_with):
        if given is open_with:
            scene.pin_file.write_text(USER_PIN)
            Pkcs11KeyStore.create(scene.keys, settings)
        assert "cannot load the PKCS#11 module /nowhere.so" in refused(given(module=Path("/nowhere.so")))
        assert "has no token 'other'" in refused(given(label="other"))
        assert "has no token in slot 77" in refused(given(slot=77))
        if given is create_with:
            # Before anyone has logged in: a process logs in once.
            scene.pin_file.chmod(0o640)
            assert f"{scene.pin_file} is open to others" in refused(given())
            scene.pin_file.chmod(0o600)
            scene.pin_file.write_text("00000000")
            assert f"refuses the PIN in {scene.pin_file}" in refused(given())
            # Not this process, nor the next: SoftHSM counts no tries, tokens do.
            assert f"the PIN in {scene.pin_file} was refused before" in refused(given())
            again = [sys.executable, __file__, "open", str(scene.pin_file)]
            told = subprocess.run(again, check=True, capture_output=True, text=True).stdout
            assert f"the PIN in {scene.pin_file} was refused before" in told
    assert not Pkcs11KeyStore.open(scene.keys, settings).is_lost


def open_once(pin_file: str) -> None:
    """A worker that starts on the token of the scene that started this process."""
    module = Path("/usr/lib/softhsm/libsofthsm2.so")
    settings = TokenSettings(module=module, pin_file=Path(pin_file), label="scene")
    sys.stdout.write(refused(lambda: TokenConnection.open(settings)))


def main() -> None:
    name = sys.argv[1]
    if name in ("hold", "open"):
        return (hold if name == "hold" else open_once)(sys.argv[2])
    scenes = {f.__name__: f for f in (lost, memory, session, sessions, slow, changed_pin, refusals)}
    mode = TokenMode(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        scenes[name](Scene(Path(directory), mode=mode))
    sys.stdout.write("played\n")
    return None


if __name__ == "__main__":
    main()
