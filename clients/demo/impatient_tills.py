"""Tills that wait only a moment: what is not answered in time is reversed, before or after the core has decided it.

Which of the two happens is chance. Afterwards every card holds what it held, less what its holder was told.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from clients.demo.residents import Resident
from clients.demo.scorecard import Scorecard
from clients.reversals import Reversals
from clients.service_client import OneCardClient
from clients.terminal import APPROVED, Terminal

PURCHASES_PER_CARD = 6
AMOUNT_MINOR = 300
# From far too little to nearly enough.
PATIENCE_S = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
TITLE = "impatient tills"


@dataclass
class Tally:
    """What the tills saw."""

    answered: int = 0
    reversed_after: int = 0
    reversed_before: int = 0
    wrong: list[str] = field(default_factory=list)


async def play(scorecard: Scorecard, *, terminals: OneCardClient, residents: Sequence[Resident]) -> None:
    """Buys with every card at once, at a till each."""
    tally = Tally()
    await asyncio.gather(
        *(_shop(tally, terminals, resident, number) for number, resident in enumerate(residents))
    )
    total = len(residents) * PURCHASES_PER_CARD
    text = (
        f"{total} purchases: {tally.answered} answered in time, {tally.reversed_after} reversed, "
        f"{tally.reversed_before} reversed before they came; every card holds what its holder was told"
    )
    got = (tally.answered + tally.reversed_after + tally.reversed_before, tally.wrong[:3])
    scorecard.event(TITLE, text, expected=(total, []), got=got)


async def _shop(tally: Tally, client: OneCardClient, resident: Resident, number: int) -> None:
    terminal = Terminal(client, terminal_id=f"I{number:07d}", merchant_id="M-HASTE")
    reversals = Reversals(client, terminal.requests)
    left_minor = (await terminal.inquire_balance(resident.chip)).available_minor
    for turn in range(PURCHASES_PER_CARD):
        request = terminal.prepare_purchase(resident.chip, amount_minor=AMOUNT_MINOR)
        patience_s = PATIENCE_S[(number + turn) % len(PATIENCE_S)]
        answer = await reversals.submit_or_reverse(request, patience_s=patience_s)
        if answer is not None:
            tally.answered += 1
            left_minor -= AMOUNT_MINOR
            if answer.response_code != APPROVED:
                tally.wrong.append(answer.response_code)
            continue
        # The goods stayed on the counter: whatever came of the request itself, it is undone.
        if (await terminal.submit(request)).response_code == APPROVED:
            tally.reversed_after += 1
        else:
            tally.reversed_before += 1
    await reversals.send_waiting()
    told_minor = (await terminal.inquire_balance(resident.chip)).available_minor
    if told_minor != left_minor:
        tally.wrong.append(f"{told_minor - left_minor:+} 分")
