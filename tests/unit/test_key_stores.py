"""Which key store the settings name: refused in one line when it cannot be, and never with a PIN in sight."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.token_settings import TokenMode
from server.cli import main
from server.errors import ConfigurationError
from server.key_stores import ensure_development_store, open_store, token_settings
from server.settings import Settings

TOKEN = {"key_store": "pkcs11", "pkcs11_module": Path("/nowhere.so"), "pkcs11_pin_file": Path("/pin")}


@pytest.mark.parametrize("missing", ["pkcs11_module", "pkcs11_pin_file"])
def test_a_token_needs_its_module_and_a_pin_file(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        Settings(**{**TOKEN, missing: None})


@pytest.mark.parametrize("given", ["pkcs11_sm4_mechanism", "pkcs11_sm4_key_type"])
def test_sm4_numbers_of_a_vendor_go_together(given: str) -> None:
    with pytest.raises(ConfigurationError, match="go together"):
        Settings(**TOKEN, **{given: 0x80000101})


@pytest.mark.parametrize("name", ["key_store", "pkcs11_mode"])
def test_a_word_that_is_no_choice_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be one of"):
        Settings(**{name: "other"})


def test_the_token_is_reached_as_the_settings_say() -> None:
    settings = Settings(
        **TOKEN,
        pkcs11_slot=3,
        pkcs11_mode="strict",
        key_store_timeout_ms=250,
        pkcs11_sm4_mechanism=0x80000101,
        pkcs11_sm4_key_type=0x80000102,
        pkcs11_tdes_derive_mechanism=0x80000103,
        pkcs11_aes_derive_mechanism=0x80000104,
    )
    token = token_settings(Settings.from_json(settings.to_json()))
    assert (token.module, token.pin_file, token.slot) == (Path("/nowhere.so"), Path("/pin"), 3)
    assert (token.mode, token.timeout_ms) == (TokenMode.STRICT, 250)
    assert (token.sm4_mechanism, token.sm4_key_type) == (0x80000101, 0x80000102)
    assert (token.tdes_derive_mechanism, token.aes_derive_mechanism) == (0x80000103, 0x80000104)
    by_label = token_settings(Settings(**TOKEN, pkcs11_token_label="province"))
    assert (by_label.slot, by_label.label, by_label.mode) == (None, "province", TokenMode.BATCH)


def test_the_pin_travels_in_no_text_of_the_settings(tmp_path: Path) -> None:
    pin_file = tmp_path / "pin"
    pin_file.write_text("93617240")
    settings = Settings(**{**TOKEN, "pkcs11_pin_file": pin_file})
    assert "93617240" not in settings.to_json() + repr(settings) + repr(token_settings(settings))


def test_numbers_of_vendors_are_given_in_hexadecimal() -> None:
    arguments = ["serve", "--key-store", "pkcs11", "--pkcs11-module", "/nowhere.so"]
    arguments += ["--pkcs11-pin-file", "/pin", "--pkcs11-sm4-mechanism", "0x80000101"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (
        2,
        "onecard: pkcs11_sm4_mechanism and pkcs11_sm4_key_type go together: give both or none\n",
    )


def test_a_store_that_does_not_open_is_told_in_one_line(tmp_path: Path) -> None:
    for settings in (Settings(key_store_dir=tmp_path), Settings(**TOKEN, key_store_dir=tmp_path)):
        with pytest.raises(ConfigurationError, match=r"^key store: cannot read [^\n]*$"):
            open_store(settings)
    SoftwareKeyStore.create(tmp_path)
    path = tmp_path / "keys.json"
    path.write_text(path.read_text().replace("PRE_ACTIVE", "ACTIVE").replace('"ACTIVE"', '"PRE_ACTIVE"'))
    with pytest.raises(ConfigurationError, match=r"^key store: key [^\n]* was changed$"):
        open_store(Settings(key_store_dir=tmp_path))


def test_a_module_that_is_absent_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot load the PKCS#11 module /nowhere.so"):
        ensure_development_store(Settings(**TOKEN, key_store_dir=tmp_path))


def test_the_embedded_default_is_made_once_and_completed_later(tmp_path: Path) -> None:
    settings = Settings(key_store_dir=tmp_path)
    ensure_development_store(settings)
    made = {info.ref: info.kcv for info in open_store(settings).describe()}
    assert "zpk-sm4" in {ref.name for ref in made}
    store = SoftwareKeyStore.open(tmp_path)
    store._list.change(lambda keys: keys.pop(store.active("zpk-sm4")))
    ensure_development_store(settings)
    completed = {info.ref: info.kcv for info in open_store(settings).describe()}
    assert completed.keys() == made.keys()
    assert [ref.name for ref in made if made[ref] != completed[ref]] == ["zpk-sm4"]
    assert json.loads((tmp_path / "keys.json").read_text())["format"] == "onecard-keys-1"
