"""The self test notices what computes wrongly, wherever below it that is, and fails by its own error."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import hmac as keyed_hash

from crypto import (
    blocks,
    dukpt_aes,
    dukpt_host,
    issuer_script,
    macs,
    pin_block,
    pin_layout,
    sealing,
    self_test,
)
from crypto.blocks import ZeroChain
from crypto.dukpt_aes import WorkingKeyType
from crypto.errors import KeyBlockInvalidError, MacInvalidError, SelfTestError
from crypto.keys import Cipher, Key
from crypto.macs import CbcMacContext
from crypto.pin_block import Pin, PinBlockFormat
from crypto.self_test import run_self_test


def test_self_test_passes():
    run_self_test()


def spoiled(result):
    """The same kind of thing, with another value."""
    if isinstance(result, Key):
        return Key(result.cipher, result.usage, spoiled(result.value))
    if isinstance(result, bytes):
        return result[:-1] + bytes([result[-1] ^ 1])
    if isinstance(result, str):
        return result[:-1] + ("1" if result[-1] == "0" else "0")
    return Pin(spoiled(result.digits))


@pytest.mark.parametrize(
    "name",
    [
        *("encrypt_ecb", "cmac_tag", "mac_algorithm_3", "derive_udk", "derive_udk_option_a", "open_sealed"),
        *("derive_pboc_session_key", "generate_arqc", "generate_arpc_method_1", "unionpay_ecb_mac"),
        *("encode_pin_block", "decrypt_pin_block", "generate_pvv", "generate_pin_offset", "generate_cvv"),
        *("derive_emv_common_session_key", "generate_arpc_method_2", "verify_arqc_generate_arpc", "hmac_sm3"),
        "encrypt_pin_block",
    ],
)
def test_self_test_notices_a_formula_that_computes_wrongly(monkeypatch, name):
    right = getattr(self_test, name)
    monkeypatch.setattr(self_test, name, lambda *args, **kwargs: spoiled(right(*args, **kwargs)))
    with pytest.raises(SelfTestError):
        run_self_test()


def broken(right, at=lambda *args: True):
    """``right`` with another value wherever ``at`` says so of its arguments."""

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        return spoiled(result) if at(*args) else result

    return wrong


class _Garbling:
    """A context whose output has one bit changed."""

    def __init__(self, context):
        self._context = context

    def update(self, blocks):
        return spoiled(self._context.update(blocks))


def second_message_is_wrong(right):
    def wrong(self, message):
        step = -1 if self._last else 1
        return right(self, message)[::step]

    return wrong


def of_cipher(cipher):
    return lambda key, *_: key.cipher is cipher


BREAKS = {
    **{
        f"decryption {cipher.value}": (
            blocks,
            "ecb_decryptor",
            lambda asked, value, broken=cipher, right=blocks.ecb_decryptor: (
                _Garbling(right(asked, value)) if asked is broken else right(asked, value)
            ),
        )
        for cipher in (Cipher.SM4, Cipher.AES, Cipher.TDES)
    },
    **{
        f"CMAC {cipher.value}": (self_test, "cmac_tag", broken(self_test.cmac_tag, of_cipher(cipher)))
        for cipher in (Cipher.SM4, Cipher.AES, Cipher.TDES)
    },
    **{
        f"ARQC {cipher.value}": (
            self_test,
            "generate_arqc",
            broken(self_test.generate_arqc, of_cipher(cipher)),
        )
        for cipher in (Cipher.SM4, Cipher.AES, Cipher.TDES)
    },
    "a chain's second message": (ZeroChain, "last_block", second_message_is_wrong(ZeroChain.last_block)),
    "the answer of a context that checked": (
        CbcMacContext,
        "encrypt",
        second_message_is_wrong(CbcMacContext.encrypt),
    ),
    "DUKPT families, 3DES": (dukpt_host._TdesTree, "family", broken(dukpt_host._TdesTree.family)),
    "DUKPT families, AES and SM4": (dukpt_host._BlockTree, "family", broken(dukpt_host._BlockTree.family)),
    "DUKPT indicator of SM4": (
        dukpt_aes,
        "KEY_SHAPES",
        {
            **dukpt_aes.KEY_SHAPES,
            WorkingKeyType.SM4: dukpt_aes.KEY_SHAPES[WorkingKeyType.SM4]._replace(indicator=2),
        },
    ),
    "sealing": (sealing, "_seal_with_nonce", broken(sealing._seal_with_nonce)),
    "script MAC": (issuer_script, "script_mac", broken(issuer_script.script_mac)),
    "script encipherment": (issuer_script, "encrypt_ecb", broken(issuer_script.encrypt_ecb)),
    "script chain": (issuer_script, "encrypt_cbc", broken(issuer_script.encrypt_cbc)),
    "HMAC-SM3 of another hash": (
        macs,
        "hmac_sm3_context",
        lambda key: keyed_hash.HMAC(key.value, hashes.SHA256()),
    ),
    "layout SM4_0": (
        pin_block,
        "_LAYOUTS",
        {
            **pin_block._LAYOUTS,
            PinBlockFormat.SM4_0: pin_layout.SM4_0._replace(pan_field=lambda pan: "0" * 32),
        },
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_self_test_notices_what_is_broken_below(monkeypatch, name):
    monkeypatch.setattr(*BREAKS[name])
    # The host has its own name for the table.
    if name.startswith("DUKPT indicator"):
        monkeypatch.setattr(dukpt_host, "KEY_SHAPES", BREAKS[name][2])
    with pytest.raises(SelfTestError):
        run_self_test()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("no"),
        IndexError("no"),
        TypeError("no"),
        UnsupportedAlgorithm("no SM4"),
        MacInvalidError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_self_test_fails_by_its_own_error_whatever_the_library_says(monkeypatch, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(self_test, "encrypt_ecb", refuse)
    with pytest.raises(SelfTestError, match=type(error).__name__):
        run_self_test()


def test_self_test_fails_by_its_own_error_when_a_known_answer_is_refused(monkeypatch):
    def refuse(*args, **kwargs):
        raise KeyBlockInvalidError("no")

    monkeypatch.setattr(self_test, "unwrap_key", refuse)
    with pytest.raises(SelfTestError, match="KeyBlockInvalidError"):
        run_self_test()


def test_the_library_stays_below_a_major_version_that_was_not_tried():
    """``crypto.blocks`` opens contexts by a name that the library does not promise to keep."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    [bounds] = [line for line in project["dependencies"] if line.startswith("cryptography")]
    below = int(bounds.rpartition("<")[2])
    assert int(version("cryptography").split(".")[0]) == below - 1
