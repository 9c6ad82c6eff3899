"""Issuer scripts through gRPC: what the card finds in them, and what is refused."""

import psec
import pyemv
import pytest
from core_under_test import Caller, Core, changed
from cryptography_requests import (
    ARQC,
    ATC,
    MARKS,
    METHODS,
    PAN,
    PBOC,
    PSN,
    ask,
    pin_change,
    refused,
    script,
    session_of,
    value_of,
)
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import ISO_4, OTHER, RIGHT, PinPad, key

from crypto.diversification import SessionMethod, derive_udk, derive_udk_option_a
from crypto.issuer_script import IssuerScript, ScriptCommand, ScriptContext, open_issuer_script
from crypto.keys import Key, KeyUsage
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, read_script_pin_block

pytestmark = MARKS


PLAIN_COMMANDS = {
    pb.ISSUER_COMMAND_APPLICATION_BLOCK: ScriptCommand.APPLICATION_BLOCK,
    pb.ISSUER_COMMAND_APPLICATION_UNBLOCK: ScriptCommand.APPLICATION_UNBLOCK,
    pb.ISSUER_COMMAND_PIN_UNBLOCK: ScriptCommand.PIN_UNBLOCK,
}


def card_opens(core: Core, suffix: str, method: int, command: bytes) -> tuple[ScriptCommand, bytes, Key]:
    """What the card finds in a command, and the card's cryptogram key."""
    context = ScriptContext(
        method=SessionMethod.PBOC if method == PBOC else SessionMethod.EMV_COMMON, atc=ATC, arqc=ARQC
    )
    # What EMV personalises is in odd parity, which the VIS PIN block shows.
    derive = derive_udk if method == PBOC else derive_udk_option_a
    udks = {
        family: derive(
            value_of(core, f"imk-{family}-{suffix}", KeyUsage[f"IMK_{family.upper()}"]), pan=PAN, psn=PSN
        )
        for family in ("smi", "smc", "ac")
    }
    opened = open_issuer_script(IssuerScript(command), context, udk_smi=udks["smi"], udk_smc=udks["smc"])
    return opened.command, opened.data, udks["ac"]


@pytest.mark.parametrize(("suffix", "method"), METHODS)
@pytest.mark.parametrize("command", PLAIN_COMMANDS)
async def test_script_without_data_is_what_the_card_expects(
    core: Core, bank: Caller, suffix: str, method: int, command: int
) -> None:
    answer = await ask(bank, "GenerateIssuerScript", script(suffix, method, command))
    assert card_opens(core, suffix, method, answer.command)[:2] == (PLAIN_COMMANDS[command], b"")
    if suffix == "tdes":
        session_key = session_of(core, suffix, method, family="smi", arqc=ARQC)
        message = answer.command[:5] + ATC.to_bytes(2) + ARQC
        assert answer.command[5:] == pyemv.sm.generate_command_mac(session_key.value, message, 4)


@pytest.mark.parametrize(("suffix", "method"), METHODS)
async def test_script_of_a_pin_change_carries_the_pin(
    core: Core, bank: Caller, pad: PinPad, suffix: str, method: int
) -> None:
    iso_2 = await ask(bank, "GenerateIssuerScript", pin_change(pad, suffix, method))
    command, data, udk_ac = card_opens(core, suffix, method, iso_2.command)
    assert command is ScriptCommand.PIN_CHANGE
    assert read_script_pin_block(data, pin_block=ScriptPinBlock.ISO_2).digits == OTHER
    assert psec.pinblock.decode_pinblock_iso_2(data) == OTHER

    cryptogram_key = {"cryptogram_key": key(f"imk-ac-{suffix}")}
    vis = await ask(bank, "GenerateIssuerScript", pin_change(pad, suffix, method, **cryptogram_key))
    command, data, _ = card_opens(core, suffix, method, vis.command)
    assert command is ScriptCommand.PIN_CHANGE
    assert data == pyemv.sm.format_vis_pin_block(udk_ac.value, OTHER)

    terminal = pad.terminal("aes").pin(RIGHT, PAN, ISO_4)
    proving = await ask(
        bank, "GenerateIssuerScript", pin_change(pad, suffix, method, **cryptogram_key, current_pin=terminal)
    )
    command, data, _ = card_opens(core, suffix, method, proving.command)
    assert command is ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN
    opened = read_script_pin_block(data, pin_block=ScriptPinBlock.VIS, udk_ac=udk_ac, current_pin=Pin(RIGHT))
    assert opened.digits == OTHER
    assert OTHER.encode().hex() not in proving.command.hex()
    assert OTHER not in proving.command.hex()


async def test_script_with_fields_that_do_not_go_together_is_refused(bank: Caller, pad: PinPad) -> None:
    pin, other_key = pad.pin(OTHER, PAN), key("imk-smc-sm4")
    unblock = script("sm4", PBOC)
    trials = [
        (changed(unblock, new_pin=pin), "new_pin"),
        (changed(unblock, confidentiality_key=other_key), "confidentiality_key"),
        (changed(unblock, cryptogram_key=key("imk-ac-sm4")), "cryptogram_key"),
        (changed(unblock, current_pin=pin), "current_pin"),
        (pin_change(pad, new_pin=None), "new_pin"),
        (pin_change(pad, confidentiality_key=None), "confidentiality_key"),
        (pin_change(pad, current_pin=pin), "current_pin"),
        (changed(unblock, integrity_key=None), "integrity_key.name"),
    ]
    for request, field in trials:
        refusal = await refused(bank, "GenerateIssuerScript", request)
        assert refusal == ("INVALID_ARGUMENT", "MALFORMED_FIELD", field)


async def test_script_whose_pin_cannot_be_read_is_refused(bank: Caller, pad: PinPad) -> None:
    of_another = pad.pin(OTHER, "6228480012345678903")
    refusal = await refused(bank, "GenerateIssuerScript", pin_change(pad, new_pin=of_another))
    assert refusal == ("INVALID_ARGUMENT", "PIN_BLOCK_INVALID", "new_pin")
    proving = pin_change(pad, cryptogram_key=key("imk-ac-sm4"), current_pin=of_another)
    refusal = await refused(bank, "GenerateIssuerScript", proving)
    assert refusal[:2] == ("INVALID_ARGUMENT", "PIN_BLOCK_INVALID")
