"""Every acknowledged operation is in the books once and says what was answered; and the books agree with themselves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.core_process import BenchCore, reconcile
from loadtests.core_calls import Acknowledgement
from loadtests.generator_job import read_acknowledgements
from loadtests.load_core import PARTICIPANT
from server.database import pool
from server.database.statements import load
from server.engine.operation import OperationKind
from server.settings import socket_dsn

_STATEMENTS = load("loadtests")
_STATEMENT_S_MAX: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the books say; everything but ``acknowledged`` must be zero or None.

    Args:
        acknowledged: answers that must be stored.
        missing: answers without their row.
        repeated: answers with more than one row.
        different: answers whose row says something else.
        reads_missing: answered status queries without an access entry.
        not_reconciled: what ``onecard reconcile`` has found, or None.
    """

    acknowledged: int
    missing: int
    repeated: int
    different: int
    reads_missing: int
    not_reconciled: str | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What forbids to believe the core, for people."""
        counts = {
            "acknowledged operations are missing": self.missing,
            "acknowledged operations are there more than once": self.repeated,
            "acknowledged operations are stored with another outcome": self.different,
            "status queries left no access entry": self.reads_missing,
        }
        found = [f"{count:,} {what}" for what, count in counts.items() if count]
        if self.not_reconciled is not None:
            found.append(f"the books do not agree: {self.not_reconciled}")
        return tuple(found)


def audit(core: BenchCore, acknowledgement_files: Sequence[Path]) -> Audit:
    """Reads the books of a core that has no more work.

    Args:
        core: still running.
        acknowledgement_files: of all generators.
    """
    answers = [answer for path in acknowledgement_files for answer in read_acknowledgements(path)]
    stored = [answer for answer in answers if answer.request_id]
    reads = len(answers) - len(stored)
    (missing, repeated, different), entries = asyncio.run(_compare(core, stored))
    return Audit(
        acknowledged=len(answers),
        missing=missing,
        repeated=repeated,
        different=different,
        # More entries than answers are right: an answer may be lost on its way.
        reads_missing=max(0, reads - entries),
        not_reconciled=reconcile(core),
    )


async def _compare(core: BenchCore, stored: Sequence[Acknowledgement]) -> tuple[tuple[int, int, int], int]:
    connection = await pool.connect(
        socket_dsn(core.socket_dir),
        application_name="onecard load",
        command_timeout=_STATEMENT_S_MAX,
    )
    try:
        row = await connection.fetchrow(
            _STATEMENTS["compare_acknowledged"],
            PARTICIPANT,
            [answer.request_id for answer in stored],
            [answer.kind for answer in stored],
            [answer.reason for answer in stored],
            [answer.amount_minor for answer in stored],
        )
        entries: int = await connection.fetchval(
            _STATEMENTS["count_status_reads"], PARTICIPANT, OperationKind.GET_CARD_STATUS
        )
    finally:
        await connection.close()
    assert row is not None, "one row"
    return (row["missing"], row["repeated"], row["different"]), entries
