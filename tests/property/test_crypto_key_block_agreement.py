"""Agreement with psec, an independent implementation of TR-31, both ways on seeded random inputs."""

import random

import psec
import pytest

from crypto.errors import KeyBlockInvalidError, KeyUsageError
from crypto.key_block import unwrap_key, wrap_key
from crypto.key_block_header import ALGORITHM_CODES, USAGE_CODES
from crypto.keys import Cipher, Exportability, Key, KeyUsage
from crypto.macs import unionpay_ecb_mac

INPUTS = 10_000
SEED = 20260101

# psec calls the library's 3DES by its old name and with short keys.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)

AES_SIZES = (16, 24, 32)
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
# Usages whose codes the standard knows; psec refuses no code, but HMAC keys have no algorithm there.
USAGES = [usage for usage, usage_code in USAGE_CODES.items() if usage_code.code[0].isalpha()]


@pytest.fixture
def draw() -> random.Random:
    return random.Random(SEED)


def draw_pair(draw: random.Random, cipher: Cipher) -> tuple[Key, Key]:
    """A protection key and a key that may go under it."""
    size = draw.choice(AES_SIZES) if cipher is Cipher.AES else 16
    kbpk = Key(cipher, KeyUsage.KEY_BLOCK_PROTECTION, draw.randbytes(size))
    key_cipher = draw.choice([Cipher.TDES, cipher])
    fitting = [fit for fit in AES_SIZES if fit <= size] if key_cipher is Cipher.AES else [16]
    return kbpk, Key(key_cipher, draw.choice(USAGES), draw.randbytes(draw.choice(fitting)))


def draw_optional_blocks(draw: random.Random) -> tuple[tuple[str, str], ...]:
    names = draw.sample(["KS", "KV", "TS", "KC", "IK", "99"], k=draw.choice([0, 0, 0, 1, 2]))
    # 251 characters are the most that a short length field tells.
    sizes = [draw.choice([0, 1, 4, 20, 33, 250, 251, 252, 300]) for _ in names]
    return tuple(
        (name, "".join(draw.choices(PRINTABLE, k=size))) for name, size in zip(names, sizes, strict=True)
    )


@pytest.mark.parametrize("cipher", [Cipher.TDES, Cipher.AES])
def test_psec_opens_what_we_wrap(draw, cipher):
    for _ in range(INPUTS // 2):
        kbpk, key = draw_pair(draw, cipher)
        code = USAGE_CODES[key.usage]
        mode_of_use, at_receiver = draw.choice(code.modes), draw.choice(list(Exportability))
        optional_blocks = draw_optional_blocks(draw)
        block = wrap_key(
            kbpk,
            key,
            exportability=Exportability.SENSITIVE,
            receiver_exportability=at_receiver,
            mode_of_use=mode_of_use,
            key_version="07",
            optional_blocks=optional_blocks,
        )
        header, value = psec.tr31.unwrap(kbpk.value, block)
        assert value == key.value
        assert (header.key_usage, header.mode_of_use) == (code.code, mode_of_use)
        assert (header.algorithm, header.version_num) == (ALGORITHM_CODES[key.cipher], "07")
        assert header.exportability == at_receiver.value
        assert tuple(header.blocks.items()) == optional_blocks
        assert len(psec.tr31.wrap(kbpk.value, header, value)) == len(block)


@pytest.mark.parametrize(("cipher", "version"), [(Cipher.TDES, "B"), (Cipher.AES, "D")])
def test_we_open_what_psec_wraps(draw, cipher, version):
    for _ in range(INPUTS // 2):
        kbpk, key = draw_pair(draw, cipher)
        code = USAGE_CODES[key.usage]
        written = psec.tr31.Header(
            version, code.code, ALGORITHM_CODES[key.cipher], draw.choice(code.modes), "00", draw.choice("ENS")
        )
        for name, text in draw_optional_blocks(draw):
            written.blocks[name] = text
        masked_size = draw.choice([None, len(key.value), 40])
        block = psec.tr31.wrap(kbpk.value, written, key.value, masked_size)
        if written.mode_of_use != code.modes[0]:
            with pytest.raises(KeyUsageError):
                unwrap_key(kbpk, block)
        header, came_back = unwrap_key(kbpk, block, narrower_modes=written.mode_of_use)
        assert came_back == key
        assert header.mode_of_use == written.mode_of_use
        assert header.exportability.value == written.exportability
        assert header.optional_blocks == tuple(written.blocks.items())


@pytest.mark.parametrize("cipher", [Cipher.TDES, Cipher.AES])
def test_both_refuse_a_changed_character(draw, cipher):
    for _ in range(INPUTS // 20):
        kbpk, key = draw_pair(draw, cipher)
        block = wrap_key(kbpk, key, exportability=Exportability.EXPORTABLE)
        at = draw.randrange(16, len(block))
        changed = block[:at] + draw.choice(sorted(set("0123456789ABCDEF") - {block[at]})) + block[at + 1 :]
        with pytest.raises(psec.tr31.KeyBlockError):
            psec.tr31.unwrap(kbpk.value, changed)
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(kbpk, changed)


def test_a_3des_key_of_three_parts_is_refused(draw):
    kbpk = draw_pair(draw, Cipher.TDES)[0]
    block = psec.tr31.wrap(kbpk.value, "B0000P0TB00E0000", draw.randbytes(24))
    with pytest.raises(KeyBlockInvalidError):
        unwrap_key(kbpk, block)


def test_the_ecb_mac_agrees_with_its_steps_written_over_psec(draw):
    for _ in range(INPUTS):
        key = Key(Cipher.TDES, KeyUsage.MAC_UNIONPAY, draw.randbytes(16))
        message = draw.randbytes(draw.randint(0, 120))
        folded = bytes(8)
        for start in range(0, len(message), 8):
            folded = psec.tools.xor(folded, message[start : start + 8].ljust(8, b"\x00"))
        expanded = folded.hex().upper().encode("ascii")
        first = psec.des.encrypt_tdes_ecb(key.value, expanded[:8])
        second = psec.des.encrypt_tdes_ecb(key.value, psec.tools.xor(first, expanded[8:]))
        assert unionpay_ecb_mac(key, message) == second.hex().upper()[:8].encode("ascii")
