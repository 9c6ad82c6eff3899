"""Thousands of purchases while a worker is killed: what was acknowledged is there afterwards, once, and unchanged.

Each card is in one terminal at a time, as in life. Terminals that lose their answer ask again under the same request
id. Afterwards every acknowledged request is asked once more and its answer compared byte for byte, and every card's
money is counted.
"""

import asyncio
import os
import signal
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from onecard.v1 import authorization_pb2 as pb

from clients.chip_card import IssuerNotGenuineError
from clients.demo.core_process import DemoCore
from clients.demo.residents import Resident
from clients.demo.scorecard import Scorecard
from clients.errors import OneCardCallError
from clients.service_client import OneCardClient
from clients.terminal import Terminal, verify_answer

PURCHASES_PER_CARD = 100
RESTART_S_MAX = 20.0
POLL_S = 0.05
TITLE = "worker killed"


@dataclass
class Storm:
    """What the terminals saw; ``under_way`` is set once ``kill_at`` purchases have ended."""

    kill_at: int
    under_way: asyncio.Event = field(default_factory=asyncio.Event)
    ended: int = 0
    acknowledged: list[tuple[Terminal, pb.AuthorizeRequest, bytes]] = field(default_factory=list)
    rrns: set[str] = field(default_factory=set)
    codes: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    spent_minor: dict[str, int] = field(default_factory=dict)

    def count_one(self) -> None:
        self.ended += 1
        if self.ended >= self.kill_at:
            self.under_way.set()


async def play(
    scorecard: Scorecard,
    core: DemoCore,
    *,
    terminals: OneCardClient,
    residents: Sequence[Resident],
) -> Set[str]:
    """Plays it and writes what came of it into the scorecard; gives the RRNs of what was acknowledged.

    Args:
        residents: cards in use; what each holds is found out first.
    """
    held_before = await _available(terminals, residents, till="B")
    total = len(residents) * PURCHASES_PER_CARD
    # A third is through, so that what was acknowledged before and after the kill can be told.
    storm = Storm(kill_at=total // 3)
    counts = terminals.channel.counts
    retried_before = counts.attempts - counts.calls
    load = [
        asyncio.create_task(_shop(storm, terminals, resident, number))
        for number, resident in enumerate(residents)
    ]
    killed, at = await _kill_one(core, storm)
    await asyncio.gather(*load)
    retried = counts.attempts - counts.calls - retried_before
    scorecard.event(
        TITLE,
        f"worker {killed} got SIGKILL after {at:,} of {total:,} purchases; {retried:,} sends were repeated "
        "under the same request id",
        expected=(total, {"00": total}, []),
        got=(len(storm.acknowledged), storm.codes, storm.errors[:3]),
    )
    scorecard.event(
        TITLE, f"{total:,} answers carry {total:,} different RRNs", expected=total, got=len(storm.rrns)
    )
    await _check_replays(scorecard, storm)
    held_after = await _available(terminals, residents, till="A")
    expected = {pan: held - 1 - storm.spent_minor.get(pan, 0) for pan, held in held_before.items()}
    wrong = sum(1 for pan, held in held_after.items() if held != expected[pan])
    scorecard.event(
        "money", f"{len(residents)} cards hold what they held less each purchase once", expected=0, got=wrong
    )
    await _await_restart(scorecard, core, killed)
    return storm.rrns


async def _shop(storm: Storm, client: OneCardClient, resident: Resident, number: int) -> None:
    """One card's purchases, one after another, at a terminal of its own."""
    terminal = Terminal(client, terminal_id=f"K{number:07d}", merchant_id="M-STORM")
    for turn in range(PURCHASES_PER_CARD):
        request = terminal.prepare_purchase(resident.chip, amount_minor=100 + turn)
        try:
            raw = await terminal.submit_raw(request)
            answer = pb.AuthorizeResponse.FromString(raw)
            verify_answer(resident.chip, request, answer)
        except (OneCardCallError, IssuerNotGenuineError) as error:
            storm.errors.append(f"{type(error).__name__}: {error}")
            # One purchase without an answer is one too many; nobody waits for the others.
            storm.under_way.set()
            return
        finally:
            storm.count_one()
        storm.acknowledged.append((terminal, request, raw))
        storm.rrns.add(answer.rrn)
        storm.codes[answer.response_code] = storm.codes.get(answer.response_code, 0) + 1
        pan = resident.chip.pan
        storm.spent_minor[pan] = storm.spent_minor.get(pan, 0) + request.amount_minor


async def _kill_one(core: DemoCore, storm: Storm) -> tuple[int, int]:
    """Kills a worker in the middle of the load; gives its pid and how many purchases were acknowledged."""
    await storm.under_way.wait()
    pid = core.worker_pids()[0]
    os.kill(pid, signal.SIGKILL)
    return pid, len(storm.acknowledged)


async def _check_replays(scorecard: Scorecard, storm: Storm) -> None:
    """Asks every acknowledged request again."""
    different = 0
    waiting = iter(storm.acknowledged)

    async def ask() -> None:
        nonlocal different
        for terminal, request, raw in waiting:
            try:
                different += await terminal.submit_raw(request) != raw
            except OneCardCallError:
                different += 1

    await asyncio.gather(*(ask() for _ in range(48)))
    scorecard.event(
        "nothing lost",
        f"{len(storm.acknowledged):,} acknowledged purchases asked again: every answer has the same bytes",
        expected=0,
        got=different,
    )


async def _await_restart(scorecard: Scorecard, core: DemoCore, killed: int) -> None:
    end_s = asyncio.get_running_loop().time() + RESTART_S_MAX
    pids = core.worker_pids()
    while killed in pids and asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(POLL_S)
        pids = core.worker_pids()
    scorecard.event(
        "supervisor", f"workers now: {', '.join(map(str, pids))}", expected=False, got=killed in pids
    )


async def _available(client: OneCardClient, residents: Sequence[Resident], *, till: str) -> dict[str, int]:
    """Available money of each card after a purchase of one fen at a terminal of ``till``, a letter of its own."""

    async def one(number: int, resident: Resident) -> int:
        terminal = Terminal(client, terminal_id=f"{till}{number:07d}", merchant_id="M-STORM")
        raw = await terminal.submit_raw(terminal.prepare_purchase(resident.chip, amount_minor=1))
        return pb.AuthorizeResponse.FromString(raw).available_minor

    held = await asyncio.gather(*(one(number, resident) for number, resident in enumerate(residents)))
    return {resident.chip.pan: minor for resident, minor in zip(residents, held, strict=True)}
