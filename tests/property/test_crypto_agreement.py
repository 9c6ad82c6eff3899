"""Agreement with pyemv, an independent implementation, on seeded random 3DES inputs."""

import random

import pyemv
import pytest

from crypto.cryptogram import (
    generate_arpc_method_1,
    generate_arpc_method_2,
    generate_arqc,
    verify_arqc_generate_arpc,
)
from crypto.diversification import (
    SessionMethod,
    derive_emv_common_session_key,
    derive_udk_option_a,
    derive_udk_option_b,
)
from crypto.issuer_script import (
    ScriptCommand,
    ScriptContext,
    build_issuer_script,
    build_pin_change,
    decipher_script_data,
    encipher_script_data,
    script_mac,
)
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, mac_algorithm_3, pad
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, write_script_pin_block

INPUTS = 10_000
SEED = 20260101
MASTERS = (KeyUsage.IMK_AC, KeyUsage.IMK_SMI, KeyUsage.IMK_SMC)
CARD_KEYS = (KeyUsage.UDK_AC, KeyUsage.UDK_SMI, KeyUsage.UDK_SMC)

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
        imk = tdes(draw, draw.choice(MASTERS))
        pan, psn = digits(draw, 12, 19), digits(draw, 2, 2)
        assert derive(imk, pan=pan, psn=psn).value == reference(imk.value, pan, psn)


def test_common_session_keys_agree(draw):
    for _ in range(INPUTS):
        udk = tdes(draw, draw.choice(CARD_KEYS))
        # An ATC for cryptograms, an ARQC for secure messaging.
        diversifier = draw.choice([draw.randbytes(2) + bytes(6), draw.randbytes(8)])
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


def test_check_and_answer_in_one_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_AC)
        data, arc = draw.randbytes(draw.randint(1, 80)), draw.randbytes(2)
        arqc = pyemv.ac.generate_ac(key.value, data, pyemv.ac.PaddingType.EMV)
        reference = pyemv.ac.generate_arpc_1(key.value, arqc, arc)
        assert verify_arqc_generate_arpc(key, data, arqc=arqc, arc=arc) == reference


def test_arpcs_of_method_2_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_AC)
        arqc, csu = draw.randbytes(8), draw.randbytes(4)
        proprietary = draw.randbytes(draw.randint(0, 8))
        reference = pyemv.ac.generate_arpc_2(key.value, arqc, csu, proprietary)
        assert generate_arpc_method_2(key, arqc=arqc, csu=csu, proprietary=proprietary) == reference


@pytest.mark.parametrize(
    ("padding", "reference"), [(Padding.ZEROS, 1), (Padding.ONE_THEN_ZEROS, 2)], ids=["method 1", "method 2"]
)
def test_retail_macs_agree(draw, padding, reference):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.MAC_ALGORITHM_3)
        message, size = draw.randbytes(draw.randint(0, 80)), draw.randint(4, 8)
        expected = pyemv.mac.mac_iso9797_3(key.value[:8], key.value[8:], message, reference, size)
        assert mac_algorithm_3(key, message, padding=padding, size=size) == expected


def test_paddings_agree(draw):
    for _ in range(INPUTS):
        message, size = draw.randbytes(draw.randint(0, 80)), draw.choice([8, 16])
        assert pad(message, size=size, padding=Padding.ZEROS) == pyemv.mac.pad_iso9797_1(message, size)
        assert pad(message, size=size, padding=Padding.ONE_THEN_ZEROS) == pyemv.mac.pad_iso9797_2(
            message, size
        )


def test_script_macs_agree(draw):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_SMI)
        message, size = draw.randbytes(draw.randint(5, 60)), draw.randint(4, 8)
        assert script_mac(key, message, size=size) == pyemv.sm.generate_command_mac(key.value, message, size)


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (SessionMethod.PBOC, pyemv.sm.EncryptionType.VISA),
        (SessionMethod.EMV_COMMON, pyemv.sm.EncryptionType.EMV),
    ],
    ids=["PBOC", "EMV common"],
)
def test_script_data_agree(draw, method, reference):
    for _ in range(INPUTS):
        key = tdes(draw, KeyUsage.SESSION_SMC)
        data = draw.randbytes(draw.randint(1, 40))
        enciphered = encipher_script_data(key, data, method=method)
        assert enciphered == pyemv.sm.encrypt_command_data(key.value, data, reference)
        assert decipher_script_data(key, enciphered, method=method) == data


def test_vis_pin_blocks_agree(draw):
    for _ in range(INPUTS):
        udk = tdes(draw, KeyUsage.UDK_AC)
        pin = digits(draw, 4, 12)
        current = draw.choice([None, digits(draw, 4, 12)])
        block = write_script_pin_block(
            Pin(pin),
            pin_block=ScriptPinBlock.VIS,
            udk_ac=udk,
            current_pin=None if current is None else Pin(current),
        )
        assert block == pyemv.sm.format_vis_pin_block(udk.value, pin, current)


def test_iso_2_pin_blocks_agree(draw):
    for _ in range(INPUTS):
        pin = digits(draw, 4, 12)
        block = write_script_pin_block(Pin(pin), pin_block=ScriptPinBlock.ISO_2)
        assert block == pyemv.sm.format_iso9564_2_pin_block(pin)


def test_whole_scripts_of_the_common_session_key_agree(draw):
    """Keys, PIN block, encipherment and MAC chained by pyemv's own steps, over each command."""
    for _ in range(INPUTS):
        udk_smi, udk_smc = tdes(draw, KeyUsage.UDK_SMI), tdes(draw, KeyUsage.UDK_SMC)
        atc, arqc = draw.randrange(0x10000), draw.randbytes(8)
        context = ScriptContext(
            method=SessionMethod.EMV_COMMON, atc=atc, arqc=arqc, mac_size=draw.randint(4, 8)
        )
        command = draw.choice(
            [each for each in ScriptCommand if not each.has_data] + [ScriptCommand.PIN_CHANGE]
        )
        enciphered = b""
        if command is ScriptCommand.PIN_CHANGE:
            pin = digits(draw, 4, 12)
            script = build_pin_change(
                context, udk_smi=udk_smi, udk_smc=udk_smc, pin=Pin(pin), pin_block=ScriptPinBlock.ISO_2
            )
            enciphered = pyemv.sm.encrypt_command_data(
                pyemv.kd.derive_common_sk(udk_smc.value, arqc),
                pyemv.sm.format_iso9564_2_pin_block(pin),
                pyemv.sm.EncryptionType.EMV,
            )
        else:
            script = build_issuer_script(command, context, udk_smi=udk_smi)
        header = command.value + bytes([len(enciphered) + context.mac_size])
        session_key = pyemv.kd.derive_common_sk(udk_smi.value, arqc)
        message = header + atc.to_bytes(2, "big") + arqc + enciphered
        mac = pyemv.sm.generate_command_mac(session_key, message, context.mac_size)
        assert script.command == header + enciphered + mac


def test_whole_pin_changes_of_pboc_agree(draw):
    """Session keys by the formula over pyemv's ECB; PIN block, encipherment and MAC as pyemv does for VIS."""

    def session_key(udk: Key, atc: bytes) -> bytes:
        complement = bytes(255 - byte for byte in atc)
        return pyemv.tools.encrypt_tdes_ecb(udk.value, bytes(6) + atc + bytes(6) + complement)

    for _ in range(INPUTS):
        udk_ac, udk_smi, udk_smc = (tdes(draw, usage) for usage in CARD_KEYS)
        atc, arqc, pin = draw.randbytes(2), draw.randbytes(8), digits(draw, 4, 12)
        current = draw.choice([None, digits(draw, 4, 12)])
        context = ScriptContext(method=SessionMethod.PBOC, atc=int.from_bytes(atc), arqc=arqc)
        script = build_pin_change(
            context,
            udk_smi=udk_smi,
            udk_smc=udk_smc,
            pin=Pin(pin),
            pin_block=ScriptPinBlock.VIS,
            udk_ac=udk_ac,
            current_pin=None if current is None else Pin(current),
        )
        enciphered = pyemv.sm.encrypt_command_data(
            session_key(udk_smc, atc),
            pyemv.sm.format_vis_pin_block(udk_ac.value, pin, current),
            pyemv.sm.EncryptionType.VISA,
        )
        header = bytes.fromhex("8424000214" if current is None else "8424000114")
        message = header + atc + arqc + enciphered
        mac = pyemv.sm.generate_command_mac(session_key(udk_smi, atc), message, 4)
        assert script.command == header + enciphered + mac
