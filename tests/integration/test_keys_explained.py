"""Operators are told why a cryptogram was wrong, and nothing of the card."""

from typing import Any

import grpc
from core_under_test import CALL_S, Core, changed, refusal_of
from integration.running_instance import Instance
from key_operators import Ceremony, new_key, reference
from onecard.v1 import common_pb2, cryptography_pb2
from onecard.v1 import keys_pb2 as pb
from virtual_card import VirtualCard


def explanation(card: VirtualCard, chip: common_pb2.ChipCryptogram, **fields: Any) -> pb.ExplainArqcRequest:
    parts = {
        "key": reference("imk-ac-sm4", 1),
        "pan": card.pan,
        "chip": chip,
        "amount_minor": 100,
    }
    return pb.ExplainArqcRequest(**parts | fields)


async def test_operators_are_told_why_a_cryptogram_was_wrong(
    ceremony: Ceremony, key_core: Core, key_instance: Instance
) -> None:
    card = VirtualCard(key_core.store, 7)
    chip = card.sign(100)
    stub = ceremony.one.stub

    async def explained(request: pb.ExplainArqcRequest) -> pb.ExplainArqcResponse:
        return await stub.ExplainArqc(request, timeout=CALL_S)

    proven = await explained(explanation(card, chip))
    assert (proven.finding, list(proven.fitting)) == ("PROVEN", [])
    names = [part.partition("=")[0] for part in proven.expected]
    assert names == [
        "key",
        "kcv",
        "session_key_method",
        "card_key_option",
        "padding",
        "data",
        "atc",
        "psn",
    ]
    assert "data=AS_AGREED" in proven.expected
    cases: list[tuple[pb.ExplainArqcRequest, str, str]] = [
        (explanation(card, changed(chip, atc=chip.atc + 1)), "FITS_OTHER_PARAMETERS", f"atc={chip.atc}"),
        (explanation(card, chip, psn="01"), "FITS_OTHER_PARAMETERS", "psn=00"),
        (explanation(card, chip, amount_minor=101), "FITS_NOTHING", ""),
        (explanation(card, chip, key=reference("imk-ac-aes")), "FITS_OTHER_PARAMETERS", "key=imk-ac-sm4/1"),
        (explanation(card, chip, key=reference("no-such-key")), "KEY_UNKNOWN", ""),
        (explanation(card, chip, key=reference("no-such-key", 1)), "KEY_UNKNOWN", ""),
        (explanation(card, chip, key=reference("sealing")), "KEY_OF_OTHER_USAGE", ""),
    ]
    for request, finding, fitting in cases:
        answer = await explained(request)
        assert answer.finding == finding, request
        assert not fitting or fitting in answer.fitting
        assert card.pan not in str(answer)
    steps = [entry for entry in await ceremony.one.audit("imk-ac-sm4") if entry.step == "EXPLAINED"]
    # Other tests may have asked before.
    findings = ["PROVEN", "FITS_OTHER_PARAMETERS", "FITS_OTHER_PARAMETERS", "FITS_NOTHING"]
    assert [entry.detail for entry in steps[-4:]] == findings
    assert {entry.participant for entry in steps[-4:]} == {"custodian-01"}
    assert card.pan not in key_instance.errors()


async def test_malformed_questions_are_refused_by_name(ceremony: Ceremony, key_core: Core) -> None:
    card = VirtualCard(key_core.store, 8)
    chip = card.sign(100)
    cases: list[tuple[pb.ExplainArqcRequest, str]] = [
        (explanation(card, chip, key=reference("")), "key.name"),
        (explanation(card, chip, key=reference("imk-ac-sm4", 256)), "key.version"),
        (explanation(card, chip, pan="12345678901"), "pan"),
        (explanation(card, chip, pan="x" * 16), "pan"),
        (explanation(card, chip, psn="1"), "psn"),
        (explanation(card, changed(chip, psn="02"), psn="01"), "chip.psn"),
        (explanation(card, chip, amount_minor=-1), "amount_minor"),
        (explanation(card, chip, amount_minor=10**12), "amount_minor"),
        (explanation(card, chip, session_key_method=9), "session_key_method"),
        (explanation(card, changed(chip, arqc=b"1234567")), "chip.arqc"),
        (explanation(card, changed(chip, iad=b"123456")), "chip.iad"),
        (explanation(card, changed(chip, atc=0)), "chip.atc"),
        (explanation(card, changed(chip, tvr=b"")), "chip.tvr"),
    ]
    for request, field in cases:
        refusal = await refusal_of(ceremony.one.stub.ExplainArqc(request, timeout=CALL_S))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field), field
        assert card.pan not in refusal.text


async def test_a_name_without_an_active_version_is_explained(ceremony: Ceremony, key_core: Core) -> None:
    await ceremony.done(generate=new_key("imk-not-active"))
    card = VirtualCard(key_core.store, 9)
    request = explanation(card, card.sign(100), key=cryptography_pb2.KeyReference(name="imk-not-active"))
    answer = await ceremony.one.stub.ExplainArqc(request, timeout=CALL_S)
    assert (answer.finding, list(answer.expected)) == ("KEY_IN_WRONG_STATE", [])
