"""The software key store's files: nothing readable by others, nothing changed unseen, older lists still open."""

import json
import stat
from pathlib import Path

import pytest
from crypto_virtual_card import ATR, make_check
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from crypto.diversification import derive_udk
from crypto.errors import (
    KeyNotFoundError,
    KeyStateError,
    KeyStoreExistsError,
    KeyStoreUnavailableError,
    KeyUsageError,
    SealBrokenError,
)
from crypto.key_store.software import DEVELOPMENT_KEYS, SoftwareKeyStore
from crypto.key_store.storage_key import write_storage_key
from crypto.key_store.wrapped_file import write_whole
from crypto.keys import Cipher, Exportability, Key, KeyRef, KeyUsage, UdkOption
from crypto.sealing import seal


def test_a_version_that_only_verifies_personalises_no_card(tmp_path):
    store = SoftwareKeyStore.create(tmp_path / "keys")
    old_check = make_check(store, "sm4")
    store.rotate("imk-ac-sm4")
    with pytest.raises(KeyStateError):
        store.personalise(
            imk=old_check.key,
            ss_master=store.active("ss-auth-sm4"),
            pan=old_check.pan,
            psn="00",
            region="360100",
            atr_historical_bytes=ATR,
        )


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


def test_a_destroyed_key_is_gone_from_the_file(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    ref = store.active("imk-ac-sm4")
    wrapped = _entry_of(tmp_path, ref)["wrapped"]
    store.retire(ref)
    store.schedule_destruction(ref, 1)
    store.destroy_due(1)
    assert SoftwareKeyStore.open(tmp_path)._keys[ref][1] is None
    entry = _entry_of(tmp_path, ref)
    assert entry["wrapped"] != wrapped
    # A nonce and a tag over nothing.
    assert len(bytes.fromhex(entry["wrapped"])) == 28


def test_a_list_written_before_there_were_later_fields_opens(tmp_path):
    """The fields and the seals of the first release: nothing of today's is in them."""
    value = bytes(range(16))
    storage_key = write_storage_key(tmp_path)
    described = {
        "name": "sealing",
        "version": 1,
        "usage": "SEALING",
        "cipher": "SM4",
        "kcv": Key(Cipher.SM4, KeyUsage.SEALING, value).kcv(),
        "state": "ACTIVE",
        "udk_option": "A",
    }
    entries = [{**described, "wrapped": seal(storage_key, value, aad=_canonical(described)).hex()}]
    sealing_key = HMAC(storage_key.value, hashes.SM3())
    sealing_key.update(b"onecard key list")
    list_seal = HMAC(sealing_key.finalize(), hashes.SM3())
    list_seal.update(_canonical(entries))
    document = {"format": "onecard-keys-1", "keys": entries, "seal": list_seal.finalize().hex()}
    write_whole(tmp_path / "keys.json", json.dumps(document).encode())
    store = SoftwareKeyStore.open(tmp_path)
    assert store._keys[KeyRef("sealing", 1)][1].value == value
    (info,) = store.describe()
    assert (info.exportability, info.destroy_at_s, info.change_id) == (Exportability.NON_EXPORTABLE, None, "")
    store.rotate("sealing")
    assert _entry_of(tmp_path, KeyRef("sealing", 2)).keys() == entries[0].keys()


def test_an_older_store_gains_the_development_keys_it_lacks(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    kept = {info.name: info.kcv for info in store.describe() if not info.name.startswith("zpk-")}
    store._list.change(lambda keys: [keys.pop(ref) for ref in list(keys) if ref.name.startswith("zpk-")])
    opened = SoftwareKeyStore.open(tmp_path)
    assert sorted(opened.ensure_development_keys()) == ["zpk-aes", "zpk-sm4", "zpk-tdes"]
    assert {info.name: info.kcv for info in opened.describe() if info.name in kept} == kept
    assert {info.name for info in opened.describe()} == set(DEVELOPMENT_KEYS)
    written = (tmp_path / "keys.json").read_bytes()
    assert opened.ensure_development_keys() == []
    assert (tmp_path / "keys.json").read_bytes() == written


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
        ("exportability", "E"),
        ("destroy_at_s", 1),
        ("change_id", "forged"),
        ("token_object", "00"),
        ("kcv", "000000"),
        ("wrapped", "00" * 44),
    ],
)
def test_a_changed_entry_is_refused_by_name(tmp_path, field, value):
    SoftwareKeyStore.create(tmp_path)
    path = tmp_path / "keys.json"
    document = json.loads(path.read_text())
    entry = next(entry for entry in document["keys"] if entry["name"] == "imk-ac-sm4")
    entry.update({field: value, **({"size": 16} if field == "token_object" else {})})
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
    write_whole(tmp_path / "storage.key", b"00" * 16)
    SoftwareKeyStore.create(tmp_path)
    assert len(SoftwareKeyStore.open(tmp_path).describe()) == len(DEVELOPMENT_KEYS)


def test_a_store_whose_list_was_lost_keeps_the_storage_key_of_its_backups(tmp_path):
    SoftwareKeyStore.create(tmp_path)
    before, backup = ((tmp_path / name).read_bytes() for name in ("storage.key", "keys.json"))
    (tmp_path / "keys.json").unlink()
    SoftwareKeyStore.create(tmp_path)
    assert (tmp_path / "storage.key").read_bytes() == before
    write_whole(tmp_path / "keys.json", backup)
    assert len(SoftwareKeyStore.open(tmp_path).describe()) == len(DEVELOPMENT_KEYS)


def test_a_storage_key_open_to_others_is_not_taken_over(tmp_path):
    write_whole(tmp_path / "storage.key", b"00" * 16)
    (tmp_path / "storage.key").chmod(0o644)
    with pytest.raises(KeyStoreUnavailableError, match="open to others"):
        SoftwareKeyStore.create(tmp_path)
    assert not (tmp_path / "keys.json").exists()


def test_a_key_is_lent_to_virtual_terminals_by_the_software_store_alone(tmp_path):
    store = SoftwareKeyStore.create(tmp_path)
    for name in ("zpk-sm4", "bdk-aes", "imk-ac-tdes"):
        assert store.lend(store.active(name)) == store._keys[store.active(name)][1]
    unborn = store.generate("bank-a", cipher=Cipher.SM4, usage=KeyUsage.PIN_ENCRYPTION)
    with pytest.raises(KeyStateError, match="PRE_ACTIVE"):
        store.lend(unborn.ref)
    with pytest.raises(KeyNotFoundError):
        store.lend(KeyRef("zpk-sm4", 2))


def _entry_of(directory: Path, ref: KeyRef) -> dict[str, object]:
    entries = json.loads((directory / "keys.json").read_text())["keys"]
    return next(entry for entry in entries if (entry["name"], entry["version"]) == ref)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_writers_in_turn_keep_each_others_changes(tmp_path):
    one = SoftwareKeyStore.create(tmp_path)
    two = SoftwareKeyStore.open(tmp_path)
    one.rotate("sealing")
    two.rotate("card-code")
    assert two.active("sealing").version == 2
    assert two.describe() == SoftwareKeyStore.open(tmp_path).describe()
