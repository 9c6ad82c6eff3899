"""Agreement with pyemv, an independent implementation, on seeded random 3DES inputs."""

import random

import pyemv
import pytest

from crypto.cryptogram import generate_arpc_method_1, generate_arpc_method_2, generate_arqc
from crypto.diversification import derive_emv_common_session_key, derive_udk_option_a, derive_udk_option_b
from crypto.keys import Cipher, Key, KeyUsage

INPUTS = 500
SEED = 20260101

# pyemv calls the library's 3DES by its old name and with short keys. Our own calls are proven free of these
# warnings by the unit tests, which run without this filter.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)


@pytest.fixture
def draw() -> random.Random:
    return random.Random(SEED)


def tdes(draw: random.Random, usage: KeyUsage) -> Key:
    return Key(Cipher.TDES, usage, draw.randbytes(16))


def digits(draw: random.Random, size_min: int, size_max: int) -> str:
    return "".join(draw.choices("0123456789", k=draw.randint(size_min, size_max)))


@pytest.mark.parametrize(
    ("derive", "reference"),
    [(derive_udk_option_a, pyemv.kd.derive_icc_mk_a), (derive_udk_option_b, pyemv.kd.derive_icc_mk_b)],
    ids=["option A", "option B"],
)
def test_card_keys_agree(draw, derive, reference):
    for _ in range(INPUTS):
        imk = tdes(draw, KeyUsage.IMK_AC)
        pan, psn = digits(draw, 12, 19), digits(draw, 2, 2)
        assert derive(imk, pan=pan, psn=psn).value == reference(imk.value, pan, psn)


def test_common_session_keys_agree(draw):
    for _ in range(INPUTS):
        udk = tdes(draw, KeyUsage.UDK_AC)
        diversifier = draw.randbytes(2) + bytes(6)
        session_key = derive_emv_common_session_key(udk, diversifier=diversifier)
        assert session_key.value == pyemv.kd.derive_common_sk(udk.value, diversifier)


def test_cryptograms_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_AC)
        data = draw.randbytes(draw.randint(1, 80))
        reference = pyemv.ac.generate_ac(key.value, data, pyemv.ac.PaddingType.EMV)
        assert generate_arqc(key, data) == reference


def test_arpcs_of_method_1_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_AC)
        arqc, arc = draw.randbytes(8), draw.randbytes(2)
        reference = pyemv.ac.generate_arpc_1(key.value, arqc, arc)
        assert generate_arpc_method_1(key, arqc=arqc, arc=arc) == reference


def test_arpcs_of_method_2_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_AC)
        arqc, csu = draw.randbytes(8), draw.randbytes(4)
        proprietary = draw.randbytes(draw.randint(0, 8))
        reference = pyemv.ac.generate_arpc_2(key.value, arqc, csu, proprietary)
        assert generate_arpc_method_2(key, arqc=arqc, csu=csu, proprietary=proprietary) == reference
