"""A terminal whose rule demands a code over every message: without it, or changed on its way, nothing is decided."""

import json
from typing import Final

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import rules_pb2

from clients.demo.callers import Callers
from clients.demo.core_process import TERMINAL_OPERATOR
from clients.demo.province_rules import HOSPITAL, SUPERMARKET
from clients.demo.residents import BDK, Bureau, Resident
from clients.demo.scorecard import Scorecard
from clients.reversals import Reversals
from clients.rule_editor import RuleEditor
from clients.terminal import Terminal

TITLE = "message codes"
TERMINAL_ID: Final = "CODED001"
AMOUNT_MINOR = 2_000
REASON = pb.DecisionReason


async def play(
    scorecard: Scorecard, callers: Callers, bureau: Bureau, resident: Resident, *, pad_number: int
) -> None:
    """Two operators demand codes of one terminal, from its next message on."""
    first, second = (RuleEditor(client.channel) for client in callers.operators)
    change = await first.propose(
        rules_pb2.RULE_KIND_TERMINAL,
        [(f"{TERMINAL_OPERATOR}/{TERMINAL_ID}", json.dumps({"mac_key": BDK}))],
        why="this terminal has keys of its own",
    )
    await second.approve(change.change_id)
    coded = Terminal(
        callers.terminals,
        terminal_id=TERMINAL_ID,
        merchant_id=SUPERMARKET,
        put_mac=bureau.pin_pad(pad_number).put_mac,
    )
    without = coded.prepare_purchase(resident.chip, amount_minor=AMOUNT_MINOR)
    declined = await callers.terminals.authorize(without)
    _expect(scorecard, "without its code", declined, REASON.DECISION_REASON_MESSAGE_MAC_INVALID)
    changed = coded.requests.coded(coded.prepare_purchase(resident.chip, amount_minor=AMOUNT_MINOR))
    changed.merchant_id = HOSPITAL
    declined = await coded.submit(changed)
    _expect(scorecard, "changed on its way", declined, REASON.DECISION_REASON_MESSAGE_MAC_INVALID)
    request = coded.prepare_purchase(resident.chip, amount_minor=AMOUNT_MINOR)
    _expect(scorecard, "with its code", await coded.submit(request), REASON.DECISION_REASON_APPROVED)
    reversal = await Reversals(callers.terminals, coded.requests).reverse(request)
    assert reversal is not None, "the core answers here"
    _expect(scorecard, "its reversal, coded too", reversal, REASON.DECISION_REASON_APPROVED)


def _expect(
    scorecard: Scorecard, what: str, answer: pb.AuthorizeResponse, reason: "pb.DecisionReason.ValueType"
) -> None:
    name = REASON.Name(answer.reason).removeprefix("DECISION_REASON_")
    text = f"{what}: {answer.response_code} {name}"
    scorecard.event(TITLE, text, expected=REASON.Name(reason), got=REASON.Name(answer.reason))
