"""A token that refuses, is slow, or computes something else: the whole call fails, and no card is called a forgery."""

import gc
import time
from dataclasses import replace

import pytest
from crypto_virtual_card import make_answer, make_check
from key_store_bureau import Bureau
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import DeviceError, DeviceMemory, PinIncorrect, PinLocked

from crypto.errors import KeyStoreUnavailableError, TokenRefusalError
from crypto.key_store import token_pin, token_thread
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.requests import EncryptedPin
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_objects import TokenObjects
from crypto.key_store.token_pin import pin_to_try_once, refusal_file
from crypto.key_store.token_settings import TokenMode
from crypto.key_store.token_thread import TokenThread
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import PinBlockFormat

CIPHERS = pytest.mark.parametrize("algorithm", ["tdes", "aes"])


@pytest.fixture
def store(token, tmp_path):
    return Pkcs11KeyStore.create(tmp_path / "keys", token)


@pytest.fixture
def strict_store(store, token, tmp_path):
    return Pkcs11KeyStore.open(tmp_path / "keys", replace(token, mode=TokenMode.STRICT))


def refused(*_, **__):
    raise DeviceMemory


@CIPHERS
@pytest.mark.parametrize("function", ["derive", "encrypt", "last_chained"])
def test_what_a_token_refuses_in_strict_mode_is_no_forgery(strict_store, monkeypatch, algorithm, function):
    check, answer = (make(Bureau(strict_store), algorithm) for make in (make_check, make_answer))
    if function == "encrypt" and algorithm == "aes":
        check = None
    with monkeypatch.context() as patch:
        patch.setattr(TokenObjects, function, refused)
        if check is not None:
            with pytest.raises(TokenRefusalError, match=r"refuses \(DeviceMemory\)$"):
                strict_store.verify_arqcs([check])
        if function != "last_chained":
            with pytest.raises(KeyStoreUnavailableError):
                strict_store.verify_internal_authentications([answer])
    assert not strict_store.is_lost
    assert check is None or strict_store.verify_arqcs([check])[0] is not None


@CIPHERS
def test_what_a_token_refuses_in_batch_mode_is_no_forgery(store, monkeypatch, algorithm):
    check, answer = (make(Bureau(store), algorithm) for make in (make_check, make_answer))
    zpk = store.active(f"zpk-{algorithm}")
    layout = PinBlockFormat.ISO_0 if algorithm == "tdes" else PinBlockFormat.ISO_4
    pin = EncryptedPin(
        key=zpk, ksn=b"", format=layout, block=bytes(16)[: 8 if algorithm == "tdes" else 16], pan=check.pan
    )
    store._cities.forget()
    with monkeypatch.context() as patch:
        patch.setattr(TokenObjects, "encrypt", refused)
        patch.setattr(TokenObjects, "decrypt", refused)
        for ask in (
            lambda: store.verify_arqcs([check]),
            lambda: store.verify_internal_authentications([answer]),
            lambda: store.encrypt_under_master(zpk, bytes(16)),
            lambda: store.decrypt_under_master(zpk, bytes(16)),
            lambda: DataPlane(store).pin_references([pin]),
            lambda: DataPlane(store).verify_arqcs([check]),
        ):
            with pytest.raises(KeyStoreUnavailableError):
                ask()
    assert not store.is_lost
    assert store.verify_arqcs([check])[0] is not None


@pytest.mark.parametrize("cipher", ["tdes", "aes"])
def test_a_wrong_number_of_a_derivation_is_refused_at_the_start_of_strict_mode(
    store, token, tmp_path, cipher
):
    settings = replace(token, mode=TokenMode.STRICT, **{f"{cipher}_derive_mechanism": 0x80001234})
    pattern = (
        rf"mechanism 0x80001234 does not derive {cipher.upper()} keys for strict mode \(MechanismInvalid\)$"
    )
    with pytest.raises(KeyStoreUnavailableError, match=pattern):
        Pkcs11KeyStore.open(tmp_path / "keys", settings)
    # Nobody derives in batch mode.
    assert Pkcs11KeyStore.open(tmp_path / "keys", replace(settings, mode=TokenMode.BATCH)).describe()


def test_a_derivation_that_computes_something_else_is_refused(store, token, tmp_path, monkeypatch):
    derive = TokenObjects.derive
    monkeypatch.setattr(
        TokenObjects, "derive", lambda self, key, cipher, data: derive(self, key, cipher, data[::-1])
    )
    with pytest.raises(
        KeyStoreUnavailableError, match=r"0x1102 does not derive TDES keys .*\(wrong answer\)$"
    ):
        Pkcs11KeyStore.open(tmp_path / "keys", replace(token, mode=TokenMode.STRICT))


@CIPHERS
def test_a_slow_token_takes_more_calls_and_is_not_lost(strict_store, monkeypatch, algorithm):
    checks = [make_check(Bureau(strict_store), algorithm, number) for number in range(24)]
    answers = [make_answer(Bureau(strict_store), algorithm, number) for number in range(12)]
    derive = TokenObjects.derive

    def slowly(*arguments):
        time.sleep(0.02)
        return derive(*arguments)

    monkeypatch.setattr(TokenObjects, "derive", slowly)
    strict_store._connection._timeout_s = 0.6
    assert all(strict_store.verify_arqcs(checks))
    assert all(strict_store.verify_internal_authentications(answers))
    assert not strict_store.is_lost


@pytest.mark.parametrize("algorithm", ["sm4", "tdes", "aes"])
def test_answers_ahead_are_those_that_are_asked_for_later(strict_store, store, monkeypatch, algorithm):
    check, arcs = make_check(Bureau(store), algorithm), (b"00", b"05", b"51")
    (verified,), (elsewhere,) = strict_store.verify_arqcs([check]), store.verify_arqcs([check])
    is_in_token = algorithm != "sm4"
    calls, call = [], strict_store._connection.call
    with monkeypatch.context() as patch:
        patch.setattr(
            strict_store._connection, "call", lambda work, **kept: calls.append(work) or call(work, **kept)
        )
        verified.answer_ahead(arcs)
        prepared = [verified.arpc(arc) for arc in arcs]
        assert len(calls) == is_in_token
        verified.arpc(b"55")
        assert len(calls) == 2 * is_in_token
    elsewhere.answer_ahead(arcs)
    assert prepared == [elsewhere.arpc(arc) for arc in arcs]
    if is_in_token:
        with pytest.raises(ValueError, match="2 bytes"):
            verified.answer_ahead([b"00", b"0"])


@pytest.mark.parametrize("made", ["generated", "imported", "storage"])
def test_an_object_may_do_what_its_usage_needs_and_is_never_changed(store, made):
    key = Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, bytes(range(16)))
    ref = store.install("bank-a", key).ref if made == "imported" else store.active("zpk-aes")
    object_id = store._storage_id if made == "storage" else store._keys[ref][1].object_id

    def attributes(objects):
        handle = objects.find(object_id)
        names = ("WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE", "MODIFIABLE", "EXTRACTABLE")
        return [name for name in names if handle[getattr(Attribute, name)]] + [
            name
            for name in ("ENCRYPT", "DECRYPT", "SENSITIVE", "PRIVATE")
            if not handle[getattr(Attribute, name)]
        ]

    assert store._connection.call(attributes) == []


def test_what_the_token_will_not_destroy_now_is_destroyed_with_the_next(strict_store):
    def left(objects):
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False}
        return len(list(objects._session.get_objects(template)))

    class Stubborn:
        def __init__(self, handle):
            self.handle, self.refusals = handle, 1

        def destroy(self):
            if self.refusals:
                self.refusals -= 1
                raise DeviceError
            self.handle.destroy()

    def discarded(objects):
        _, material = strict_store._list.entry(strict_store.active("imk-ac-aes"))
        imk = objects.find(material.object_id)
        before = left(objects)
        made = [objects.derive(imk, Cipher.AES, bytes([number] * 16)) for number in range(3)]
        objects.discard([made[0], Stubborn(made[1]), made[2]])
        after = left(objects)
        objects.discard([])
        return after - before, left(objects) - before

    assert strict_store._connection.call(discarded) == (1, 0)


def test_a_check_that_the_token_ends_half_way_leaves_no_key_behind(strict_store, monkeypatch):
    check = make_check(Bureau(strict_store), "tdes")

    def count(objects):
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False}
        return len(list(objects._session.get_objects(template)))

    gc.collect()
    before = strict_store._connection.call(count)
    with monkeypatch.context() as patch:
        patch.setattr(TokenObjects, "last_chained", refused)
        for _ in range(3):
            with pytest.raises(TokenRefusalError):
                strict_store.verify_arqcs([check])
    assert strict_store._connection.call(count) == before


def test_a_recovery_that_fails_in_an_unknown_way_is_tried_again_and_ends_no_thread(monkeypatch, caplog):
    monkeypatch.setattr(token_thread, "RECOVERY_PAUSE_S", 0.01)
    thread = TokenThread("trial")
    tries = []

    def attempt():
        tries.append(1)
        if len(tries) < 3:
            raise OSError(5, "what nobody may read")
        return True

    thread.recover(attempt)
    deadline_s = time.monotonic() + 10
    while len(tries) < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert thread.submit(lambda: "alive").result(10) == "alive"
    assert "OSError" in caplog.text
    assert "what nobody may read" not in caplog.text


def test_a_module_reached_by_two_paths_has_one_thread(token, tmp_path):
    link = tmp_path / "module.so"
    link.symlink_to(token.module)
    by_link, by_name = (TokenConnection(replace(token, module=path)) for path in (link, token.module))
    assert by_link._module is by_name._module


@pytest.fixture
def pin_file(tmp_path):
    path = tmp_path / "pin"
    path.touch(mode=0o600)
    path.write_text("48205917\n")
    return path


def try_pin(pin_file, refusal=None):
    with pin_to_try_once(pin_file) as pin:
        if refusal is not None:
            raise refusal
        return pin


def test_a_pin_that_was_refused_is_tried_by_nobody_until_its_file_is_another(pin_file):
    assert try_pin(pin_file) == "48205917"
    with pytest.raises(PinIncorrect):
        try_pin(pin_file, PinIncorrect)
    for _ in range(2):
        with pytest.raises(
            KeyStoreUnavailableError, match="was refused before and is not tried again"
        ) as told:
            try_pin(pin_file)
    assert "48205917" not in str(told.value)
    remembered = refusal_file(pin_file)
    assert "48205917" not in remembered.read_text()
    assert remembered.stat().st_mode & 0o777 == 0o600
    pin_file.write_text("60415382\n")
    assert try_pin(pin_file) == "60415382"
    with pytest.raises(PinIncorrect):
        try_pin(pin_file, PinIncorrect)
    remembered.unlink()
    assert try_pin(pin_file) == "60415382"


def test_the_pin_of_a_locked_token_may_be_right_again(pin_file):
    with pytest.raises(PinLocked):
        try_pin(pin_file, PinLocked)
    assert try_pin(pin_file) == "48205917"


def test_a_refusal_that_cannot_be_remembered_is_a_refusal_all_the_same(pin_file, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(token_pin, "write_whole", read_only)
    with pytest.raises(PinIncorrect):
        try_pin(pin_file, PinIncorrect)
    assert not refusal_file(pin_file).exists()
