"""The software key store's files and key lives: nothing readable by others, nothing changed unseen."""

import json
import stat
from pathlib import Path

import pytest
from crypto_virtual_card import ATR, make_check

from crypto.card_code import CardCodeUse
from crypto.diversification import derive_udk
from crypto.errors import (
    KeyNotFoundError,
    KeyStateError,
    KeyStoreExistsError,
    KeyStoreUnavailableError,
    KeyUsageError,
    SealBrokenError,
)
from crypto.key_store.diagnosis import ArqcFinding
from crypto.key_store.software import DEVELOPMENT_KEYS, SoftwareKeyStore
from crypto.keys import Cipher, KeyRef, KeyState, KeyUsage, UdkOption


def test_after_rotation_the_old_version_only_verifies(tmp_path):
    store = SoftwareKeyStore.create(tmp_path / "keys")
    old_check, old_codes = make_check(store, "sm4"), store.card_codes(store.active("card-code"))
    old_code = old_codes.issue(card_alias=bytes(8), use=CardCodeUse.PAYMENT, issued_at_s=1)
    assert store.rotate("imk-ac-sm4") == KeyRef("imk-ac-sm4", 2) == store.active("imk-ac-sm4")
    assert store.verify_arqcs([old_check])[0] is not None
    with pytest.raises(KeyStateError):
        store.personalise(
            imk=old_check.key,
            ss_master=store.active("ss-auth-sm4"),
            pan=old_check.pan,
            psn="00",
            region="360100",
            atr_historical_bytes=ATR,
        )
    new = store.rotate("card-code")
    assert store.card_codes(new).open(old_code).key_version == 1
    with pytest.raises(KeyStateError):
        store.card_codes(KeyRef("card-code", 1))


def test_an_issuer_that_decimalises_long_numbers_has_a_key_of_its_own(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    ref = store.add_key("imk-ac-bank-b", cipher=Cipher.TDES, usage=KeyUsage.IMK_AC, udk_option=UdkOption.B)
    imk = store._keys[ref][1]
    long, short = ("6217000010012345678", "00"), ("6217000010012345", "00")
    expected = [derive_udk(imk, pan=pan, psn=psn, option=UdkOption.B) for pan, psn in (long, short)]
    assert SoftwareKeyStore.open(tmp_path).diversify_udks(ref, [long, short]) == expected
    assert expected[0] != derive_udk(imk, pan=long[0], psn=long[1])
    assert expected[1] == derive_udk(imk, pan=short[0], psn=short[1])
    with pytest.raises(KeyStateError, match="exists"):
        store.add_key("imk-ac-bank-b", cipher=Cipher.TDES, usage=KeyUsage.IMK_AC)
    with pytest.raises(KeyUsageError):
        store.add_key("imk-ac-bank-c", cipher=Cipher.SM4, usage=KeyUsage.CARD_CODE)


def test_a_destroyed_key_proves_nothing_and_is_gone_from_the_file(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    check = make_check(store, "sm4")
    reader = SoftwareKeyStore.open(tmp_path)
    store.set_state(check.key, KeyState.DESTROYED)
    assert store.verify_arqcs([check]) == [None]
    assert store.explain_arqc(check).finding is ArqcFinding.KEY_IN_WRONG_STATE
    assert reader.verify_arqcs([check])[0] is not None
    reader.reload()
    assert reader.verify_arqcs([check]) == [None]
    assert SoftwareKeyStore.open(tmp_path)._keys[check.key][1] is None
    with pytest.raises(KeyStateError, match="no active"):
        store.active("imk-ac-sm4")


def test_a_key_never_steps_back_in_its_life(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    ref = store.active("sealing")
    store.set_state(ref, KeyState.VERIFY_ONLY)
    for state in (KeyState.PRE_ACTIVE, KeyState.ACTIVE, KeyState.VERIFY_ONLY):
        with pytest.raises(KeyStateError):
            store.set_state(ref, state)
    with pytest.raises(KeyStateError):
        store.rotate("sealing")
    with pytest.raises(KeyNotFoundError):
        store.set_state(KeyRef("sealing", 7), KeyState.DESTROYED)


def test_a_store_opens_as_it_was_created(tmp_path):
    created = SoftwareKeyStore.create(tmp_path / "deep" / "keys")
    opened = SoftwareKeyStore.open(tmp_path / "deep" / "keys")
    assert opened.describe() == created.describe()
    assert opened.verify_arqcs([make_check(created, "tdes")])[0] is not None
    with pytest.raises(KeyStoreExistsError):
        SoftwareKeyStore.create(tmp_path / "deep" / "keys")


def test_the_files_are_for_their_owner_only_and_hold_no_clear_key(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    content = (tmp_path / "keys.json").read_text().lower()
    for _, key in store._keys.values():
        assert key.value.hex() not in content
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("file", ["storage.key", "keys.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_file_open_to_others_is_refused_in_one_line(tmp_path, file, mode):
    SoftwareKeyStore.create(tmp_path)
    (tmp_path / file).chmod(mode)
    with pytest.raises(KeyStoreUnavailableError, match=f"{file} is open to others .*chmod 600") as refusal:
        SoftwareKeyStore.open(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", ["storage.key", "keys.json"])
def test_a_missing_linked_or_garbled_file_is_refused(tmp_path, file):
    SoftwareKeyStore.create(tmp_path)
    path: Path = tmp_path / file
    content = path.read_bytes()
    path.write_bytes(b"\xff\xfe garbage")
    with pytest.raises(KeyStoreUnavailableError):
        SoftwareKeyStore.open(tmp_path)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(content)
    with pytest.raises(KeyStoreUnavailableError, match="cannot read"):
        SoftwareKeyStore.open(tmp_path)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyStoreUnavailableError, match="cannot read"):
        SoftwareKeyStore.open(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "imk-ac-other"),
        ("version", 2),
        ("state", "PRE_ACTIVE"),
        ("usage", "SEALING"),
        ("cipher", "AES"),
        ("udk_option", "B"),
        ("kcv", "000000"),
        ("wrapped", "00" * 44),
    ],
)
def test_a_changed_entry_is_refused_by_name(tmp_path, field, value):
    SoftwareKeyStore.create(tmp_path)
    path = tmp_path / "keys.json"
    document = json.loads(path.read_text())
    entry = next(entry for entry in document["keys"] if entry["name"] == "imk-ac-sm4")
    entry[field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(SealBrokenError, match=f"key {entry['name']} version"):
        SoftwareKeyStore.open(tmp_path)


def test_a_removed_or_doubled_entry_is_refused(tmp_path):
    SoftwareKeyStore.create(tmp_path)
    path = tmp_path / "keys.json"
    document = json.loads(path.read_text())
    for entries in (document["keys"][1:], [*document["keys"], document["keys"][0]]):
        path.write_text(json.dumps({**document, "keys": entries}))
        with pytest.raises(SealBrokenError, match="list of keys"):
            SoftwareKeyStore.open(tmp_path)


def test_another_storage_key_opens_nothing(tmp_path):
    SoftwareKeyStore.create(tmp_path / "one")
    SoftwareKeyStore.create(tmp_path / "two")
    (tmp_path / "one" / "storage.key").write_bytes((tmp_path / "two" / "storage.key").read_bytes())
    with pytest.raises(SealBrokenError):
        SoftwareKeyStore.open(tmp_path / "one")


def test_a_creation_that_died_before_its_list_may_be_repeated(tmp_path):
    (tmp_path / "storage.key").write_text("00" * 16)
    SoftwareKeyStore.create(tmp_path)
    assert len(SoftwareKeyStore.open(tmp_path).describe()) == len(DEVELOPMENT_KEYS)


def test_writers_in_turn_keep_each_others_changes(tmp_path):
    one = SoftwareKeyStore.create(tmp_path)
    two = SoftwareKeyStore.open(tmp_path)
    one.rotate("sealing")
    two.rotate("card-code")
    assert two.active("sealing").version == 2
    assert two.describe() == SoftwareKeyStore.open(tmp_path).describe()
