"""The data plane's issuer scripts agree with pyemv, from the issuer's master keys on, in batches over many cards."""

import random

import pyemv
import pytest

from crypto.diversification import SessionMethod
from crypto.issuer_script import ScriptCommand
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin, IssuerScriptRequest
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import Pin, PinBlockFormat, encrypt_pin_blocks

INPUTS = 10_000
BATCH = 250
SEED = 20260103

# pyemv calls the library's 3DES by its old name and with short keys; see test_crypto_agreement.py.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)


@pytest.fixture
def draw() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
def store(tmp_path) -> SoftwareKeyStore:
    return SoftwareKeyStore.create(tmp_path / "keys")


def digits(draw: random.Random, size_min: int, size_max: int) -> str:
    return "".join(draw.choices("0123456789", k=draw.randint(size_min, size_max)))


def test_pin_changes_of_cards_that_were_made_the_emv_way_agree(draw, store):
    """Card keys in odd parity, which the VIS PIN block shows and nothing else."""
    plane = DataPlane(store)
    zpk = store.active("zpk-tdes")
    masters, refs = {}, {}
    for family, usage in (("ac", KeyUsage.IMK_AC), ("smi", KeyUsage.IMK_SMI), ("smc", KeyUsage.IMK_SMC)):
        masters[family] = draw.randbytes(16)
        installed = store.install(f"emv-{family}", Key(Cipher.TDES, usage, masters[family]))
        refs[family] = store.activate(installed.ref).ref

    def encrypted(pan: str, pin: str) -> EncryptedPin:
        layout = PinBlockFormat.ISO_0
        [block] = encrypt_pin_blocks(
            lambda blocks: store.encrypt_under_master(zpk, blocks), [(Pin(pin), pan)], format=layout
        )
        return EncryptedPin(key=zpk, ksn=b"", format=layout, block=block, pan=pan)

    for _ in range(INPUTS // BATCH):
        requests, expected = [], []
        for _ in range(BATCH):
            pan, psn, pin = digits(draw, 13, 19), digits(draw, 2, 2), digits(draw, 4, 12)
            current = draw.choice([None, digits(draw, 4, 12)])
            atc, arqc, is_vis = draw.randrange(0x10000), draw.randbytes(8), draw.random() < 0.8
            current = current if is_vis else None
            requests.append(
                IssuerScriptRequest(
                    integrity_key=refs["smi"],
                    confidentiality_key=refs["smc"],
                    cryptogram_key=refs["ac"] if is_vis else None,
                    pan=pan,
                    psn=psn,
                    atc=atc,
                    arqc=arqc,
                    session_method=SessionMethod.EMV_COMMON,
                    command=ScriptCommand.PIN_CHANGE,
                    new_pin=encrypted(pan, pin),
                    current_pin=None if current is None else encrypted(pan, current),
                )
            )
            udks = {name: pyemv.kd.derive_icc_mk_a(value, pan, psn) for name, value in masters.items()}
            block = (
                pyemv.sm.format_vis_pin_block(udks["ac"], pin, current)
                if is_vis
                else pyemv.sm.format_iso9564_2_pin_block(pin)
            )
            enciphered = pyemv.sm.encrypt_command_data(
                pyemv.kd.derive_common_sk(udks["smc"], arqc), block, pyemv.sm.EncryptionType.EMV
            )
            header = bytes.fromhex("8424000214" if current is None else "8424000114")
            message = header + atc.to_bytes(2, "big") + arqc + enciphered
            session_key = pyemv.kd.derive_common_sk(udks["smi"], arqc)
            expected.append(header + enciphered + pyemv.sm.generate_command_mac(session_key, message, 4))
        assert plane.generate_issuer_scripts(requests) == expected
