"""INTERNAL AUTHENTICATE: the social-security application proves itself over data we chose.

Terminal command ``00 88 00 00 10 ‖ process factor (8) ‖ original data (8)``; the card answers 8 bytes. The
process key is derived from the card key for this one answer. The output form for SM4 and AES (two halves
xored) is a profile of this project: no public text confirms it. Must never accept an answer of another
length.
"""

import hmac

from crypto.blocks import ecb_encryptor
from crypto.diversification import complemented
from crypto.errors import InternalAuthenticationInvalidError
from crypto.keys import Cipher, Key, KeyUsage

PROCESS_FACTOR_SIZE = 8
ORIGINAL_DATA_SIZE = 8
RESPONSE_SIZE = 8


def respond_under(cipher: Cipher, card_key: bytes, *, process_factor: bytes, original_data: bytes) -> bytes:
    """``generate_response`` on a card key's bytes, for batches that never make typed keys.

    Raises:
        ValueError: a length is wrong.
    """
    process_key = ecb_encryptor(cipher, card_key).update(complemented(process_factor))
    if cipher is Cipher.TDES:
        if len(original_data) != ORIGINAL_DATA_SIZE:
            raise ValueError("original data has 8 bytes")
        return ecb_encryptor(cipher, process_key).update(original_data)
    block = ecb_encryptor(cipher, process_key).update(complemented(original_data))
    return (int.from_bytes(block[:8]) ^ int.from_bytes(block[8:])).to_bytes(8)


def generate_response(card_key: Key, *, process_factor: bytes, original_data: bytes) -> bytes:
    """The card's answer, 8 bytes.

    SP = diversify(card key, process factor); 3DES: E(SP, original data); SM4 and AES: left 8 xor right 8 of
    E(SP, original data ‖ ~original data).

    Args:
        card_key: usage ``SS_AUTHENTICATION_CARD``.
        process_factor: 8 bytes.
        original_data: 8 bytes.
    Raises:
        KeyUsageError: not a social-security card key.
        ValueError: a length is wrong.
    Source: INTERNAL AUTHENTICATE of the social-security application, as read in public terminal code;
        SM4 and AES: profile of this project.
    """
    card_key.require(KeyUsage.SS_AUTHENTICATION_CARD)
    return respond_under(
        card_key.cipher, card_key.value, process_factor=process_factor, original_data=original_data
    )


def verify_response(card_key: Key, *, process_factor: bytes, original_data: bytes, response: bytes) -> None:
    """Checks the card's answer.

    Args:
        card_key: usage ``SS_AUTHENTICATION_CARD``.
        process_factor: 8 bytes.
        original_data: 8 bytes.
        response: 8 bytes as the card sent them.
    Raises:
        InternalAuthenticationInvalidError: not this card's answer to this challenge.
        KeyUsageError: not a social-security card key.
        ValueError: a length of the challenge is wrong.
    Source: as ``generate_response``.
    """
    expected = generate_response(card_key, process_factor=process_factor, original_data=original_data)
    if not hmac.compare_digest(expected, response):
        raise InternalAuthenticationInvalidError("the answer is not this card's")
