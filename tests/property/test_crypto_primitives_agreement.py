"""Agreement of the lowest floors with psec and pyemv on seeded random inputs: ciphers, chains, MACs, check values."""

import random

import psec
import pyemv
import pytest

from crypto.blocks import decrypt_cbc, decrypt_ecb, encrypt_cbc, encrypt_ecb
from crypto.diversification import odd_parity
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, mac_algorithm_1, mac_algorithm_3, pad

INPUTS = 10_000
SEED = 20260102

# Both libraries call 3DES by its old name and with short keys; see test_crypto_agreement.py.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)
PADDINGS = {
    Padding.ZEROS: (1, psec.mac.pad_iso_1),
    Padding.ONE_THEN_ZEROS: (2, psec.mac.pad_iso_2),
    Padding.LENGTH_THEN_ZEROS: (3, psec.mac.pad_iso_3),
}


@pytest.fixture
def draw() -> random.Random:
    return random.Random(SEED)


def key(draw: random.Random, cipher: Cipher) -> Key:
    sizes = (16, 24, 32) if cipher is Cipher.AES else (16,)
    return Key(cipher, KeyUsage.MESSAGE_MAC, draw.randbytes(draw.choice(sizes)))


@pytest.mark.parametrize(
    ("cipher", "size", "encrypt", "decrypt"),
    [
        (Cipher.TDES, 8, psec.des.encrypt_tdes_ecb, psec.des.decrypt_tdes_ecb),
        (Cipher.TDES, 8, pyemv.tools.encrypt_tdes_ecb, None),
        (Cipher.AES, 16, psec.aes.encrypt_aes_ecb, psec.aes.decrypt_aes_ecb),
    ],
    ids=["psec 3DES", "pyemv 3DES", "psec AES"],
)
def test_blocks_agree(draw, cipher, size, encrypt, decrypt):
    for _ in range(INPUTS):
        ours, blocks = key(draw, cipher), draw.randbytes(size * draw.randint(1, 4))
        encrypted = encrypt_ecb(ours, blocks)
        assert encrypted == encrypt(ours.value, blocks)
        if decrypt is not None:
            assert decrypt_ecb(ours, encrypted) == decrypt(ours.value, encrypted)


@pytest.mark.parametrize(
    ("cipher", "size", "encrypt", "decrypt"),
    [
        (Cipher.TDES, 8, psec.des.encrypt_tdes_cbc, psec.des.decrypt_tdes_cbc),
        (Cipher.TDES, 8, pyemv.tools.encrypt_tdes_cbc, None),
        (Cipher.AES, 16, psec.aes.encrypt_aes_cbc, psec.aes.decrypt_aes_cbc),
    ],
    ids=["psec 3DES", "pyemv 3DES", "psec AES"],
)
def test_chains_agree(draw, cipher, size, encrypt, decrypt):
    for _ in range(INPUTS):
        ours, iv = key(draw, cipher), draw.randbytes(size)
        blocks = draw.randbytes(size * draw.randint(1, 4))
        encrypted = encrypt_cbc(ours, iv=iv, blocks=blocks)
        assert encrypted == encrypt(ours.value, iv, blocks)
        if decrypt is not None:
            assert decrypt_cbc(ours, iv=iv, blocks=encrypted) == decrypt(ours.value, iv, encrypted)


@pytest.mark.parametrize("padding", list(Padding), ids=lambda padding: padding.name)
@pytest.mark.parametrize("size", [8, 16])
def test_paddings_agree(draw, padding, size):
    for _ in range(INPUTS):
        # psec leaves an empty message without a block; a MAC needs one.
        message = draw.randbytes(draw.randint(1, 70))
        assert pad(message, size=size, padding=padding) == PADDINGS[padding][1](message, size)


@pytest.mark.parametrize("padding", list(Padding), ids=lambda padding: padding.name)
@pytest.mark.parametrize(
    ("cipher", "algorithm"),
    [(Cipher.TDES, psec.mac.Algorithm.DES), (Cipher.AES, psec.mac.Algorithm.AES)],
    ids=["3DES", "AES"],
)
def test_cbc_macs_agree(draw, padding, cipher, algorithm):
    for _ in range(INPUTS):
        ours, message = key(draw, cipher), draw.randbytes(draw.randint(1, 70))
        reference = psec.mac.generate_cbc_mac(ours.value, message, PADDINGS[padding][0], algorithm=algorithm)
        assert mac_algorithm_1(ours, message, padding=padding) == reference


@pytest.mark.parametrize("padding", list(Padding), ids=lambda padding: padding.name)
def test_retail_macs_agree(draw, padding):
    for _ in range(INPUTS):
        ours, message = key(draw, Cipher.TDES), draw.randbytes(draw.randint(1, 70))
        left, right = ours.value[:8], ours.value[8:]
        reference = psec.mac.generate_retail_mac(left, right, message, PADDINGS[padding][0])
        assert mac_algorithm_3(ours, message, padding=padding) == reference


def test_check_values_agree(draw):
    for _ in range(INPUTS):
        ours = key(draw, Cipher.TDES)
        assert ours.kcv() == psec.des.generate_kcv(ours.value, 3).hex().upper()
        assert ours.kcv() == pyemv.tools.key_check_digits(ours.value, 3).hex().upper()


def test_odd_parity_agrees(draw):
    for _ in range(INPUTS):
        value = draw.randbytes(16)
        assert odd_parity(value) == psec.des.adjust_key_parity(value) == pyemv.tools.adjust_key_parity(value)
