"""What a token must compute as everybody does before a card depends on it: the mechanisms whose numbers are settings.

A wrong number would make every good card a forgery. For the token's thread only. Must never leave a key behind.
"""

import hmac
from collections.abc import Callable

from pkcs11.exceptions import PKCS11Error

from crypto.blocks import encrypt_ecb
from crypto.errors import KeyStoreUnavailableError
from crypto.key_store.token_objects import Handle, TokenObjects
from crypto.key_store.token_settings import TokenMode, TokenSettings
from crypto.keys import Cipher, Key, KeyUsage

# GB/T 32907-2016, annex A.1: key and plaintext are the same.
_SM4_KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
_SM4_ANSWER = bytes.fromhex("681EDF34D206965E86B3E94F536E4246")
_MASTER = bytes(range(1, 17))
_FACTOR = bytes(range(17, 33))


def prove_mechanisms(objects: TokenObjects, settings: TokenSettings) -> None:
    """Refuses a token that computes something else under the numbers it was given.

    Raises:
        KeyStoreUnavailableError: one line says which number.
        PKCS11Error: a key that the proof made is not destroyed.
    """
    if Cipher.SM4 in objects.ciphers:
        refusal = _refusal(
            objects,
            Cipher.SM4,
            _SM4_KEY,
            lambda key: objects.encrypt(key, Cipher.SM4, _SM4_KEY),
            expected=_SM4_ANSWER,
        )
        if refusal:
            raise KeyStoreUnavailableError(
                f"key store: mechanism {settings.sm4_mechanism:#x} is not SM4: it fails the example of GB/T 32907"
                f" ({refusal})"
            )
    if settings.mode is TokenMode.STRICT:
        _prove_derivation(objects, Cipher.TDES, settings.tdes_derive_mechanism)
        _prove_derivation(objects, Cipher.AES, settings.aes_derive_mechanism)


def _prove_derivation(objects: TokenObjects, cipher: Cipher, number: int) -> None:
    # The second factor is that of a retail MAC's chain, whose two halves are equal: some modules refuse such keys.
    for factor in (_FACTOR, _FACTOR[:8] * 2):

        def derived_block(key: Handle, factor: bytes = factor) -> bytes:
            derived = objects.derive(key, cipher, factor)
            try:
                return objects.encrypt(derived, cipher, _FACTOR)
            finally:
                objects.discard([derived])

        card_key = encrypt_ecb(Key(cipher, KeyUsage.IMK_AC, _MASTER), factor)
        expected = encrypt_ecb(Key(cipher, KeyUsage.UDK_AC, card_key), _FACTOR)
        refusal = _refusal(objects, cipher, _MASTER, derived_block, expected=expected)
        if refusal:
            raise KeyStoreUnavailableError(
                f"key store: mechanism {number:#x} does not derive {cipher.value} keys for strict mode ({refusal})"
            )


def _refusal(
    objects: TokenObjects,
    cipher: Cipher,
    value: bytes,
    compute: Callable[[Handle], bytes],
    *,
    expected: bytes,
) -> str:
    """Why the answer under a key of the session is not the expected one; empty when it is."""
    try:
        object_id = objects.create(cipher, KeyUsage.IMK_AC, value, label="onecard-proof", store=False)
        try:
            answer = compute(objects.find(object_id))
        finally:
            objects.destroy(object_id)
    except PKCS11Error as error:
        return type(error).__name__
    return "" if hmac.compare_digest(answer, expected) else "wrong answer"
