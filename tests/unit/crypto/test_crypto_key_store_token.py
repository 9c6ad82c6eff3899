"""Keys in a PKCS#11 token: what never leaves it, what it must compute as everyone does, what is refused."""

import gc
import json
import threading
import time
from dataclasses import replace

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau, handing_out_card_keys
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive

from crypto.cryptogram import ArqcSession
from crypto.errors import (
    KeyStateError,
    KeyStoreExistsError,
    KeyStoreUnavailableError,
    KeyUsageError,
    SealBrokenError,
)
from crypto.key_store.lifecycle import RESIDENT_USAGES, TokenKey
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_settings import TokenMode
from crypto.keys import Cipher, Exportability, Key, KeyState, KeyUsage

MASTERS = {
    Cipher.SM4: bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"),
    Cipher.TDES: bytes.fromhex("0023456789ABCDEFFEDCBA9876543211"),
    Cipher.AES: bytes(range(32)),
}
AES_KEY_TYPE, AES_ECB = 0x1F, 0x1081


@pytest.fixture
def store(token, tmp_path):
    return Pkcs11KeyStore.create(tmp_path / "keys", token)


@pytest.fixture
def strict_store(token, tmp_path):
    return Pkcs11KeyStore.create(tmp_path / "strict", replace(token, mode=TokenMode.STRICT))


def objects_of(store, **template):
    """Token objects that fit, with their attributes."""
    attributes = {getattr(Attribute, name.upper()): value for name, value in template.items()}

    def search(objects):
        found = objects._session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, **attributes})
        return list(found)

    return store._connection.call(search)


def test_masters_are_in_the_token_and_nothing_reads_them(store):
    for ref, (info, material) in store._keys.items():
        is_resident = info.usage in RESIDENT_USAGES and info.cipher in (Cipher.AES, Cipher.TDES)
        assert isinstance(material, TokenKey) == is_resident
        if is_resident:
            (handle,) = objects_of(store, id=material.object_id)

            def facts(_, handle=handle):
                with pytest.raises(AttributeSensitive):
                    handle[Attribute.VALUE]
                return [handle[getattr(Attribute, name)] for name in ("SENSITIVE", "EXTRACTABLE", "TOKEN")]

            assert store._connection.call(facts) == [True, False, True]
            with pytest.raises(KeyUsageError, match="does not leave its token"):
                store._value(ref)
    assert store.is_blocking


def test_the_storage_key_never_leaves_the_token_and_the_list_says_which_it_is(store, tmp_path):
    document = json.loads((tmp_path / "keys" / "keys.json").read_text())
    (handle,) = objects_of(store, id=bytes.fromhex(document["storage_key_id"]))
    facts = store._connection.call(
        lambda _: [
            handle[getattr(Attribute, name)] for name in ("SENSITIVE", "EXTRACTABLE", "LABEL", "TOKEN")
        ]
    )
    assert facts == [True, False, "onecard-storage", True]
    assert [path.name for path in (tmp_path / "keys").iterdir() if path.name != ".lock"] == ["keys.json"]
    for _, material in store._keys.values():
        if isinstance(material, Key):
            assert material.value.hex() not in (tmp_path / "keys" / "keys.json").read_text().lower()


def test_a_key_that_may_be_exported_is_not_locked_into_the_token(store):
    for exportability in Exportability:
        name = f"zone-{exportability.value.lower()}"
        info = store.generate(
            name, cipher=Cipher.AES, usage=KeyUsage.PIN_ENCRYPTION, exportability=exportability
        )
        store.activate(info.ref)
        if exportability is Exportability.NON_EXPORTABLE:
            with pytest.raises(KeyUsageError):
                store.open_to_export(info.ref)
        else:
            assert store.open_to_export(info.ref).kcv() == info.kcv


@pytest.mark.parametrize("size", [16, 24, 32])
def test_check_values_computed_in_the_token_are_those_of_the_key(store, size):
    for cipher in (Cipher.AES, Cipher.TDES):
        value = MASTERS[Cipher.AES][:size] if cipher is Cipher.AES else MASTERS[cipher]
        info = store.install(f"kcv-{cipher.value.lower()}", Key(cipher, KeyUsage.IMK_AC, value))
        material = store._keys[info.ref][1]
        computed = store._connection.call(
            lambda objects, of=material, cipher=cipher: objects.kcv(objects.find(of.object_id), cipher)
        )
        assert computed == info.kcv == Key(cipher, KeyUsage.IMK_AC, value).kcv()


def test_strict_mode_leaves_nothing_derived_behind(strict_store):
    before = len(objects_of(strict_store, token=False))
    checks = [make_check(Bureau(strict_store), ("tdes", "aes")[n % 2], n) for n in range(6)]
    checks[0].arqc = checks[1].arqc = bytes(8)
    verified = strict_store.verify_arqcs(checks)
    # Four sessions alive: two of 3DES with a chain key each, two of AES.
    assert len(objects_of(strict_store, token=False)) == before + 6
    assert not any(isinstance(each._session, ArqcSession) for each in verified if each is not None)
    assert "TokenSession(****)" in repr(verified[2]._session)
    del verified
    gc.collect()
    assert len(objects_of(strict_store, token=False)) == before


def test_a_destroyed_key_is_gone_from_the_token(store):
    ref = store.active("zpk-aes")
    object_id = store._keys[ref][1].object_id
    assert len(objects_of(store, id=object_id)) == 1
    store.retire(ref)
    store.schedule_destruction(ref, 1)
    (destroyed,) = store.destroy_due(1)
    assert destroyed.state is KeyState.DESTROYED
    assert objects_of(store, id=object_id) == []


def test_a_destruction_that_died_half_way_is_repeated(store):
    ref = store.active("zpk-aes")
    object_id = store._keys[ref][1].object_id
    store.retire(ref)
    store.schedule_destruction(ref, 1)
    store._connection.call(lambda objects: objects.destroy(object_id))
    assert [info.ref for info in store.destroy_due(1)] == [ref]


@pytest.mark.parametrize("deed", ["removed", "replaced", "by another process"])
def test_a_key_changed_in_the_token_is_refused_and_its_neighbours_are_not(strict_store, tmp_path, deed):
    store = strict_store
    ref, other = store.active("imk-ac-tdes"), store.active("imk-ac-aes")
    checks = [make_check(Bureau(store), "tdes"), make_check(Bureau(store), "aes")]
    object_id = store._keys[ref][1].object_id

    def change(objects):
        if deed == "by another process":
            # Whose removal leaves the handle of this one behind.
            objects._found[object_id].destroy()
            return
        objects.destroy(object_id)
        if deed == "replaced":
            objects.generate(Cipher.TDES, KeyUsage.IMK_AC, label="forged", size=16, object_id=object_id)
            objects.forget()

    store._connection.call(change)
    with handing_out_card_keys(store), pytest.raises(KeyStateError, match="imk-ac-tdes version 1 is refused"):
        store.encrypt_under_master(ref, bytes(16))
    assert [result is not None for result in store.verify_arqcs(checks)] == [False, True]
    assert not store.is_lost
    with handing_out_card_keys(store):
        store.encrypt_under_master(other, bytes(16))


@pytest.mark.parametrize(
    ("mechanism", "why"), [(AES_ECB, "wrong answer"), (0x80000101, "MechanismInvalid|ArgumentsBad")]
)
def test_a_vendor_mechanism_that_is_not_sm4_is_refused(token, tmp_path, store, mechanism, why):
    settings = replace(token, sm4_mechanism=mechanism, sm4_key_type=AES_KEY_TYPE)
    pattern = rf"mechanism {mechanism:#x} is not SM4.*\(({why})\)$"
    with pytest.raises(KeyStoreUnavailableError, match=pattern):
        Pkcs11KeyStore.open(tmp_path / "keys", settings)
    with pytest.raises(KeyStoreUnavailableError, match=pattern):
        Pkcs11KeyStore.create(tmp_path / "other", settings)
    assert not (tmp_path / "other" / "keys.json").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", "PRE_ACTIVE"), ("kcv", "000000"), ("token_object", "00" * 16), ("wrapped", "00" * 28)],
)
def test_a_changed_entry_is_refused_by_name(store, token, tmp_path, field, value):
    path = tmp_path / "keys" / "keys.json"
    document = json.loads(path.read_text())
    entry = next(entry for entry in document["keys"] if entry["name"] == "imk-ac-aes")
    entry[field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(SealBrokenError, match="key imk-ac-aes version 1 was changed"):
        Pkcs11KeyStore.open(tmp_path / "keys", token)
    with pytest.raises(SealBrokenError, match="key imk-ac-aes version 1 was changed"):
        store.refresh()
    assert not store.is_lost


def test_a_removed_entry_or_another_seal_is_refused(store, token, tmp_path):
    path = tmp_path / "keys" / "keys.json"
    document = json.loads(path.read_text())
    for change in ({"keys": document["keys"][1:]}, {"seal": "00" * 60}, {"seal": "no hex"}):
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(SealBrokenError, match="list of keys"):
            Pkcs11KeyStore.open(tmp_path / "keys", token)


def test_a_list_is_opened_by_the_backend_and_the_storage_key_it_was_made_with(store, token, tmp_path):
    SoftwareKeyStore.create(tmp_path / "software")
    with pytest.raises(KeyStoreUnavailableError, match="kept elsewhere"):
        Pkcs11KeyStore.open(tmp_path / "software", token)
    (tmp_path / "software" / "keys.json").write_bytes((tmp_path / "keys" / "keys.json").read_bytes())
    with pytest.raises(KeyStoreUnavailableError, match="kept elsewhere"):
        SoftwareKeyStore.open(tmp_path / "software")
    path = tmp_path / "keys" / "keys.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "storage_key_id": "00" * 16}))
    with pytest.raises(KeyStoreUnavailableError, match="no storage key of this list"):
        Pkcs11KeyStore.open(tmp_path / "keys", token)
    with pytest.raises(KeyStoreUnavailableError, match="kept elsewhere"):
        store.refresh()


def test_a_store_is_never_made_over_another(store, token, tmp_path):
    with pytest.raises(KeyStoreExistsError):
        Pkcs11KeyStore.create(tmp_path / "keys", token)


def test_a_store_may_begin_with_fewer_keys(token, tmp_path):
    store = Pkcs11KeyStore.create(tmp_path / "few", token, names=("sealing", "imk-ac-aes"))
    assert [info.name for info in store.describe()] == ["imk-ac-aes", "sealing"]
    assert len(store.ensure_development_keys()) > 10
    assert Pkcs11KeyStore.open(tmp_path / "few", token).describe() == store.describe()


def test_a_busy_token_is_not_a_lost_one(token):
    connection = TokenConnection.open(replace(token, timeout_ms=100))
    waiting = [threading.Thread(target=lambda: connection.call(lambda _: time.sleep(0.03))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for _ in range(20):
        connection._thread.submit(lambda: connection._run(lambda _: time.sleep(0.03), None))
    with pytest.raises(KeyStoreUnavailableError, match="within 100 ms"):
        connection.call(lambda objects: objects.random(8))
    assert not connection.is_lost
    for thread in waiting:
        thread.join()


def test_one_call_asks_the_token_for_a_whole_batch(store):
    calls = []
    call = store._connection.call
    checks = [make_check(Bureau(store), "tdes", number) for number in range(64)]
    store._connection.call = lambda work, **session: calls.append(work) or call(work, **session)
    assert all(store.verify_arqcs(checks))
    assert len(calls) == 1


def test_nothing_shows_the_pin_or_a_key(store, token):
    pin = token.pin_file.read_text().strip()
    shown = f"{store!r} {token!r} {store.describe()!r} {vars(store._connection)!r}"
    assert pin not in shown
    for _, material in store._keys.values():
        if isinstance(material, Key):
            assert material.value.hex() not in shown
