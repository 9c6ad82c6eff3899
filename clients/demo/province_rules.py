"""The rules of the demonstration's province: which merchant is of which trade."""

import json
from typing import Final

from onecard.v1 import rules_pb2 as pb

from clients.demo.callers import Callers
from clients.demo.core_process import TERMINAL_OPERATOR
from clients.demo.scorecard import Scorecard, refusal_of
from clients.rule_editor import RuleEditor

HOSPITAL, SUPERMARKET, HOTEL = "HOSPITAL", "SUPERMARKET", "HOTEL"
PETROL, BUS = "PETROL", "BUS"
# Merchant category codes of ISO 18245.
CATEGORIES: Final = {HOSPITAL: "8062", SUPERMARKET: "5411", HOTEL: "7011", PETROL: "5542", BUS: "4131"}
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
    expected = "PERMISSION_DENIED SECOND_PERSON_REQUIRED change_id"
    scorecard.event(TITLE, f"one person alone: {alone}", expected=expected, got=alone)
    approved = await second.approve(change.change_id)
    text = f"{approved.rule_count} merchants have their trade, version {approved.version} of the rules"
    state = pb.RuleChangeState.Name(approved.state)
    scorecard.event(TITLE, text, expected="RULE_CHANGE_STATE_APPROVED", got=state)
