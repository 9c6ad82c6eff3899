"""The rules of the demonstration's province: which merchant is of which trade, and for how long a hold runs."""

import json
from collections.abc import Mapping
from typing import Any, Final

from onecard.v1 import rules_pb2 as pb

from clients.demo.callers import Callers
from clients.demo.core_process import TERMINAL_OPERATOR
from clients.demo.scorecard import Scorecard, refusal_of
from clients.rule_editor import RuleEditor

HOSPITAL, SUPERMARKET, HOTEL = "HOSPITAL", "SUPERMARKET", "HOTEL"
PETROL, BUS = "PETROL", "BUS"
# Merchant category codes of ISO 18245.
CATEGORIES: Final = {HOSPITAL: "8062", SUPERMARKET: "5411", HOTEL: "7011", PETROL: "5542", BUS: "4131"}
# As shipped; a rule is changed as a whole.
HOLD_RULE: Final = {"day_count_max": 200, "capture_tolerance_percent": 15, "hold_days": 30}
TITLE = "rules"


async def register_merchants(scorecard: Scorecard, callers: Callers) -> None:
    """One operator proposes the trades of the terminal operator's merchants, and only another can approve them."""
    first, second = (RuleEditor(client.channel) for client in callers.operators)
    merchants = [
        (f"{TERMINAL_OPERATOR}/{merchant_id}", json.dumps({"category": category}))
        for merchant_id, category in CATEGORIES.items()
    ]
    change = await first.propose(pb.RULE_KIND_MERCHANT, merchants, why="merchants of the demonstration")
    alone = await refusal_of(first.approve(change.change_id))
    expected = "PERMISSION_DENIED SECOND_PERSON_REQUIRED"
    scorecard.event(TITLE, f"one person alone: {alone}", expected=expected, got=alone)
    approved = await second.approve(change.change_id)
    text = f"{approved.rule_count} merchants have their trade, version {approved.version} of the rules"
    state = pb.RuleChangeState.Name(approved.state)
    scorecard.event(TITLE, text, expected="RULE_CHANGE_STATE_APPROVED", got=state)


async def set_hold_days(callers: Callers, hold_days: int) -> None:
    """How long new holds run, in the whole province."""
    rule: Mapping[str, Any] = {**HOLD_RULE, "hold_days": hold_days}
    first, second = (RuleEditor(client.channel) for client in callers.operators)
    change = await first.propose(
        pb.RULE_KIND_LIMIT,
        [("pre_authorization", json.dumps(rule))],
        why=f"holds of {hold_days} days",
    )
    await second.approve(change.change_id)
