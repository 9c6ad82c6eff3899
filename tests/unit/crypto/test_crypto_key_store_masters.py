"""What a master key may be asked for, over every backend, and how a state that another process changed is met."""

import asyncio
import threading
from functools import partial

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau, handing_out_card_keys
from pkcs11 import Attribute, ObjectClass

from crypto.diversification import SessionMethod
from crypto.errors import (
    KEY_REFUSALS,
    KeyNotFoundError,
    KeyStateError,
    KeyStoreUnavailableError,
    KeyUsageError,
)
from crypto.issuer_script import ScriptCommand
from crypto.key_store import key_list
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.diagnosis import ArqcFinding
from crypto.key_store.lifecycle import RESIDENT_USAGES, TokenKey
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.requests import IssuerScriptRequest
from crypto.key_store.token_objects import TokenObjects
from crypto.keys import Cipher, Key, KeyRef, KeyState, KeyUsage

GIVEN = Key(Cipher.AES, KeyUsage.IMK_AC, bytes(range(1, 17)))
DERIVING = ("imk-ac", "imk-smi", "imk-smc", "ss-auth")


@pytest.fixture
def store(changing_store):
    return changing_store


@pytest.fixture
def other(other_store):
    return other_store


def test_blocks_are_encrypted_under_master_keys_alone(any_store):
    for info in any_store.describe():
        if info.usage in RESIDENT_USAGES:
            with handing_out_card_keys(any_store) as store:
                assert len(store.encrypt_under_master(info.ref, bytes(16))) == 16
        else:
            with pytest.raises(KeyUsageError):
                any_store.encrypt_under_master(info.ref, bytes(16))
    with pytest.raises(KeyNotFoundError):
        any_store.encrypt_under_master(KeyRef("zpk-sm4", 9), bytes(16))


@pytest.mark.parametrize("cipher", [Cipher.SM4, Cipher.AES])
def test_a_master_key_that_is_not_in_force_encrypts_nothing(store, cipher):
    ref = store.generate("bank-a", cipher=cipher, usage=KeyUsage.PIN_ENCRYPTION).ref
    for block_operation in (store.encrypt_under_master, store.decrypt_under_master):
        with pytest.raises(KeyStateError, match="PRE_ACTIVE"):
            block_operation(ref, bytes(16))
    store.activate(ref)
    assert store.decrypt_under_master(ref, store.encrypt_under_master(ref, bytes(16))) == bytes(16)


def test_no_backend_opens_a_master_key(any_store):
    for info in any_store.describe():
        if info.usage in RESIDENT_USAGES:
            with pytest.raises(KeyUsageError, match="inside the key store"):
                any_store.open_key(info.ref, info.usage)
        else:
            assert any_store.open_key(info.ref, info.usage).kcv() == info.kcv


def script_request(store, suffix):
    return IssuerScriptRequest(
        integrity_key=store.active(f"imk-smi-{suffix}"),
        confidentiality_key=None,
        pan="6217000010012345678",
        psn="00",
        atc=1,
        arqc=bytes(8),
        session_method=SessionMethod.PBOC,
        command=ScriptCommand.APPLICATION_BLOCK,
    )


def test_card_keys_never_leave_a_token_in_strict_mode(any_store, backend):
    check = make_check(Bureau(any_store), "sm4")
    card, refs = (check.pan, check.psn), {ref.name: ref for ref in (i.ref for i in any_store.describe())}
    for suffix in ("sm4", "tdes", "aes"):
        check.key = refs[f"imk-ac-{suffix}"]
        masters = [refs[f"{name}-{suffix}"] for name in DERIVING]
        with handing_out_card_keys(any_store):
            # What is open already must not come out either.
            any_store.encrypt_under_city(masters[-1], "360100", bytes(16))
        asked = [partial(any_store.encrypt_under_master, ref, bytes(16)) for ref in masters]
        asked += [
            partial(any_store.diversify_udks, check.key, [card]),
            partial(any_store.encrypt_under_city, masters[-1], "360100", bytes(16)),
            partial(any_store.explain_arqc, check),
        ]
        (script,) = DataPlane(any_store).generate_issuer_scripts([script_request(any_store, suffix)])
        if backend.name == "strict" and suffix != "sm4":
            assert isinstance(any_store._keys[check.key][1], TokenKey)
            assert isinstance(script, KeyUsageError)
            for ask in asked:
                with pytest.raises(KeyUsageError, match="do not leave the token in strict mode"):
                    ask()
        else:
            assert isinstance(script, bytes)
            for ask in asked:
                ask()


def test_the_diagnosis_in_strict_mode_goes_past_keys_that_stay_in_the_token(any_store):
    check = make_check(Bureau(any_store), "aes")
    check.key = any_store.active("imk-ac-sm4")
    with handing_out_card_keys(any_store) as store:
        assert store.explain_arqc(check).finding is ArqcFinding.FITS_OTHER_PARAMETERS
    check.arqc = bytes(8)
    assert any_store.explain_arqc(check).finding is ArqcFinding.FITS_NOTHING


def test_a_version_that_another_process_activated_is_met_in_its_new_state(store, other):
    new = store.generate("imk-ac-sm4", cipher=Cipher.SM4, usage=KeyUsage.IMK_AC)
    other.refresh()
    store.activate(new.ref)
    check = make_check(Bureau(store), "sm4")
    assert check.key == new.ref
    assert other.verify_arqcs([check])[0] is not None
    newest = store.generate("imk-ac-sm4", cipher=Cipher.SM4, usage=KeyUsage.IMK_AC)
    other.refresh()
    store.activate(newest.ref)
    assert other.require_generating(newest.ref, KeyUsage.IMK_AC).state is KeyState.ACTIVE
    assert other.require_usable(new.ref, KeyUsage.IMK_AC).state is KeyState.VERIFY_ONLY
    with pytest.raises(KeyStateError, match="may not generate"):
        other.require_generating(new.ref, KeyUsage.IMK_AC)


def test_a_name_without_an_active_version_is_looked_for_in_what_another_process_wrote(store, other):
    new = store.generate("bank-a", cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)
    for look_up in (other.active, store.active):
        with pytest.raises(KeyStateError, match="no active"):
            look_up("bank-a")
    assert other.usable("bank-a") == []
    store.activate(new.ref)
    assert other.usable("bank-a") == [new.ref]
    store.retire(new.ref)
    other.refresh()
    replacing = store.generate("bank-a", cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)
    store.activate(replacing.ref)
    assert other.active("bank-a") == replacing.ref
    assert other.usable("bank-a") == [new.ref, replacing.ref]
    with pytest.raises(KeyNotFoundError):
        other.active("bank-b")


def test_looking_a_name_up_goes_through_no_list(store, monkeypatch):
    class Untold(dict):
        def values(self):
            raise AssertionError("walked through")

        items = __iter__ = values

    with monkeypatch.context() as patch:
        patch.setattr(store._list, "keys", Untold(store._list.keys))
        assert store.active("zpk-sm4") == KeyRef("zpk-sm4", 1)
        assert store.usable("zpk-sm4") == [KeyRef("zpk-sm4", 1)]
        assert store.usable("no-such-key") == []


def test_an_unknown_key_waits_for_nobody_who_reads_or_writes_the_list(store, other):
    store.rotate("zpk-sm4")
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with other._list._lock:
            held.set()
            assert let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    with pytest.raises(KeyNotFoundError):
        other.require_usable(KeyRef("zpk-sm4", 2), KeyUsage.PIN_ENCRYPTION)
    let_go.set()
    holder.join()
    other.require_usable(KeyRef("zpk-sm4", 2), KeyUsage.PIN_ENCRYPTION)


def test_an_unknown_key_never_asks_a_token_from_an_event_loop(store, other, monkeypatch):
    ref = store.rotate("zpk-sm4").ref

    async def look_up():
        return other.require_usable(ref, KeyUsage.PIN_ENCRYPTION)

    if not other.is_blocking:
        assert asyncio.run(look_up()).ref == ref
        return
    with monkeypatch.context() as patch:
        patch.setattr(other._connection, "call", lambda *_, **__: pytest.fail("asked"))
        with pytest.raises(KeyNotFoundError):
            asyncio.run(look_up())
    assert other.require_usable(ref, KeyUsage.PIN_ENCRYPTION).ref == ref


def count_objects(store):
    """Keys that stay in the token."""
    if not isinstance(store, Pkcs11KeyStore):
        return 0
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: True}
    return store._connection.call(lambda objects: len(list(objects._session.get_objects(template))))


def full_disk(*_):
    raise OSError(28, "No space left on device")


CHANGES = {
    "generate": lambda store: store.generate(
        "bank-a", cipher=Cipher.AES, usage=KeyUsage.IMK_AC, change_id="one"
    ),
    "install": lambda store: store.install("bank-a", GIVEN, change_id="one"),
    "rotate": lambda store: store.rotate("imk-ac-aes", change_id="one"),
    "add_key": lambda store: store.add_key("bank-a", cipher=Cipher.TDES, usage=KeyUsage.IMK_AC),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_cannot_be_written_leaves_nothing_behind(store, monkeypatch, name):
    before, keys = count_objects(store), store.describe()
    with monkeypatch.context() as patch:
        patch.setattr(key_list, "write_keys", full_disk)
        with pytest.raises(KeyStoreUnavailableError, match=r"cannot write .*No space left"):
            CHANGES[name](store)
    assert count_objects(store) == before
    assert store.describe() == keys
    CHANGES[name](store)
    assert count_objects(store) == before + isinstance(store, Pkcs11KeyStore)


def test_what_a_dead_change_left_in_the_token_is_replaced_when_it_is_repeated(store, monkeypatch):
    before = count_objects(store)
    with monkeypatch.context() as patch:
        patch.setattr(key_list, "write_keys", full_disk)
        patch.setattr(type(store), "_discard_unlisted", lambda *_: None)
        for name in ("generate", "rotate") * 2:
            with pytest.raises(KeyStoreUnavailableError):
                CHANGES[name](store)
    in_token = isinstance(store, Pkcs11KeyStore)
    assert count_objects(store) == before + 2 * in_token
    for name in ("generate", "rotate") * 2:
        CHANGES[name](store)
    assert count_objects(store) == before + 2 * in_token
    (ref,) = store.usable("imk-ac-aes")[1:]
    with handing_out_card_keys(store):
        store.encrypt_under_master(ref, bytes(16))


def test_what_the_list_names_stays_although_its_writing_was_told_to_have_failed(store, other, monkeypatch):
    write = key_list.write_keys

    def written_and_failed(*arguments):
        write(*arguments)
        full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(key_list, "write_keys", written_and_failed)
        with pytest.raises(KeyStoreUnavailableError):
            store.rotate("zpk-aes", change_id="one")
    assert store.rotate("zpk-aes", change_id="one").version == 2
    store.encrypt_under_master(KeyRef("zpk-aes", 2), bytes(16))
    other.encrypt_under_master(KeyRef("zpk-aes", 2), bytes(16))


def test_a_token_that_fails_half_way_keeps_nothing_of_a_new_key(store, monkeypatch):
    if not isinstance(store, Pkcs11KeyStore):
        return
    before = count_objects(store)
    with monkeypatch.context() as patch:
        patch.setattr(TokenObjects, "kcv", lambda *_: time_out())
        with pytest.raises(KeyStoreUnavailableError):
            store.rotate("zpk-aes")
    assert count_objects(store) == before


def time_out():
    raise KeyStoreUnavailableError("the caller no longer waits")


def test_refusals_of_keys_are_told_apart_from_a_store_that_is_gone():
    assert set(KEY_REFUSALS) == {KeyNotFoundError, KeyUsageError, KeyStateError}
    assert not issubclass(KeyStoreUnavailableError, KEY_REFUSALS)
