"""A hotel that comes too late: its hold has run out, the online completion is declined, and the advice is posted.

Holds of the whole province run out at once while it plays, so it plays when no city has a hold.
"""

from onecard.v1 import authorization_pb2 as pb

from clients.demo.callers import Callers
from clients.demo.province_rules import HOTEL, set_hold_days
from clients.demo.residents import Resident
from clients.demo.scorecard import Scorecard
from clients.holds import Holds
from clients.terminal import Terminal

TITLE = "late advice"
HELD_MINOR, OWED_MINOR = 90_000, 64_000
REASON = pb.DecisionReason


async def play(scorecard: Scorecard, callers: Callers, resident: Resident) -> None:
    """Holds money for no time at all, by a change of the rules; what is owed is taken all the same, and flagged."""
    terminal = Terminal(callers.terminals, terminal_id="LATE0001", merchant_id=HOTEL)
    chip, desk = resident.chip, Holds(terminal)
    before = await terminal.purchase(chip, amount_minor=1)
    await set_hold_days(callers, 0)
    held = await desk.pre_authorize(chip, amount_minor=HELD_MINOR)
    await set_hold_days(callers, 30)
    late = await desk.complete(chip.pan, rrn=held.rrn, amount_minor=OWED_MINOR)
    _expect(scorecard, "the hold has run out, asked online", late, REASON.DECISION_REASON_HOLD_EXPIRED)
    advice = desk.prepare_completion(chip.pan, rrn=held.rrn, amount_minor=OWED_MINOR, is_advice=True)
    posted = await terminal.submit(advice)
    _expect(scorecard, "the same as an advice", posted, REASON.DECISION_REASON_FORCED_POST)
    after = await terminal.purchase(chip, amount_minor=1)
    taken_minor = before.available_minor - after.available_minor - 1
    text = f"the hotel has its {taken_minor:,} 分, nothing stays held"
    scorecard.event(TITLE, text, expected=OWED_MINOR, got=taken_minor)


def _expect(
    scorecard: Scorecard, what: str, answer: pb.AuthorizeResponse, reason: "pb.DecisionReason.ValueType"
) -> None:
    name = REASON.Name(answer.reason).removeprefix("DECISION_REASON_")
    text = f"{what}: {answer.response_code} {name}"
    scorecard.event(TITLE, text, expected=REASON.Name(reason), got=REASON.Name(answer.reason))
