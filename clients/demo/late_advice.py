"""A hotel that comes too late: its hold has run out, the online completion is declined, and the advice is posted.

A hold runs a day at least: the end of this one is moved in the database. It is the only thing that the demonstration
does past gRPC.
"""

from pathlib import Path
from typing import Final

import asyncpg
from onecard.v1 import authorization_pb2 as pb

from clients.demo.core_process import DemoCore
from clients.demo.province_rules import BUS, HOTEL
from clients.demo.residents import Resident
from clients.demo.scorecard import Scorecard
from clients.holds import Holds
from clients.service_client import OneCardClient
from clients.terminal import Terminal
from server.settings import socket_dsn

TITLE = "late advice"
HELD_MINOR, OWED_MINOR, FARE_MINOR = 90_000, 64_000, 300
REASON = pb.DecisionReason
_END_HOLD: Final = "UPDATE holds SET expires_at = clock_timestamp() WHERE hold_id = $1"


async def play(scorecard: Scorecard, core: DemoCore, *, terminals: OneCardClient, resident: Resident) -> None:
    """What is owed is taken although the hold has run out, and flagged; so is a fare from a gate without a line."""
    terminal = Terminal(terminals, terminal_id="LATE0001", merchant_id=HOTEL)
    chip, desk = resident.chip, Holds(terminal)
    before = await terminal.inquire_balance(chip)
    held = await desk.pre_authorize(chip, amount_minor=HELD_MINOR)
    await _end_hold(core, held.rrn)
    late = await desk.complete(chip.pan, rrn=held.rrn, amount_minor=OWED_MINOR)
    _expect(scorecard, "the hold has run out, asked online", late, REASON.DECISION_REASON_HOLD_EXPIRED)
    advice = desk.prepare_completion(chip.pan, rrn=held.rrn, amount_minor=OWED_MINOR, is_advice=True)
    posted = await terminal.submit(advice)
    _expect(scorecard, "the same as an advice", posted, REASON.DECISION_REASON_FORCED_POST)
    gate = Terminal(terminals, terminal_id="LATE0002", merchant_id=BUS)
    fare = gate.prepare_advice(chip.pan, amount_minor=FARE_MINOR, operation=pb.OPERATION_TYPE_TAP)
    _expect(scorecard, "a fare that a gate stored", await gate.submit(fare), REASON.DECISION_REASON_APPROVED)
    after = await terminal.inquire_balance(chip)
    taken_minor = before.available_minor - after.available_minor
    text = f"hotel and bus have their {taken_minor:,} 分, nothing stays held"
    scorecard.event(TITLE, text, expected=OWED_MINOR + FARE_MINOR, got=taken_minor)


async def _end_hold(core: DemoCore, rrn: str) -> None:
    connection = await asyncpg.connect(socket_dsn(Path(core.facts()["socket_dir"])))
    try:
        # The RRN is the operation's id, and so the hold's.
        await connection.execute(_END_HOLD, int(rrn))
    finally:
        await connection.close()


def _expect(
    scorecard: Scorecard, what: str, answer: pb.AuthorizeResponse, reason: "pb.DecisionReason.ValueType"
) -> None:
    name = REASON.Name(answer.reason).removeprefix("DECISION_REASON_")
    text = f"{what}: {answer.response_code} {name}"
    scorecard.event(TITLE, text, expected=REASON.Name(reason), got=REASON.Name(answer.reason))
