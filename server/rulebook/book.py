"""The rules in force, in a worker's memory: brought up to date by the batch that finds them behind.

A batch reads the highest approved version under its locks; when it differs, the book takes what changed before anything
is decided. So a terminal that was blocked a moment ago is blocked for the next operation, and no rule costs a read. A
rule that this release cannot read stops what it is about, and never a batch of others.
"""

import asyncio
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from server import telemetry
from server.database.pool import acquired
from server.database.statements import load
from server.rulebook.rules import (
    UNREADABLE_RULES,
    AcceptanceRule,
    Channel,
    LimitRule,
    MerchantRule,
    Rule,
    TerminalRule,
    WalletRule,
    check_subject,
    parse_rule,
)

log = logging.getLogger(__name__)

STATEMENTS = load("server.rulebook")
CHANGED_RULES = STATEMENTS["changed_rules"]
NO_LIMIT = LimitRule()
# Subjects after which other calls get their turn.
SUBJECTS_AT_ONCE = 2_000
# Changes of so many rules are read ahead while they wait, this many rules of them in all.
AHEAD_RULES_MIN = 1_000
AHEAD_RULES_MAX = 200_000


@dataclass(slots=True)
class Taken:
    """Rules that were read and are not in force yet: by kind and key, with the subjects they came for."""

    rules: dict[str, dict[Any, Any]] = field(default_factory=lambda: defaultdict(dict))
    subjects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unreadable: set[tuple[str, str]] = field(default_factory=set)


class RuleBook:
    """Rules by subject; ``version`` is that of the newest change in it.

    Merchants and terminals are known by acquirer and identifier. ``unreadable`` are the subjects whose newest rule this
    release does not understand: by kind and subject.
    """

    def __init__(self) -> None:
        self.version = 0
        self.limits: dict[Channel, LimitRule] = dict.fromkeys(Channel, NO_LIMIT)
        self.wallets: dict[int, WalletRule] = {}
        self.merchants: dict[tuple[str, str], MerchantRule] = {}
        self.terminals: dict[tuple[str, str], TerminalRule] = {}
        self.acceptance: dict[str, AcceptanceRule] = {}
        self.unreadable: set[tuple[str, str]] = set()
        # What waits for its approval, by change; lines of a whole change never change.
        self.ahead: dict[Any, Taken] = {}
        # Large changes that were seen whole, and need not be counted again, whether they were read or not.
        self._whole: set[Any] = set()
        self._places: dict[str, dict[Any, Any]] = {
            "limit": self.limits,
            "wallet": self.wallets,
            "merchant": self.merchants,
            "terminal": self.terminals,
            "acceptance": self.acceptance,
        }
        # The lanes of a worker share the book: one that read less must not put back what another took since.
        self._refreshing = asyncio.Lock()

    async def refresh(self, connection: "asyncpg.Connection[Any]") -> None:
        """Takes the changes that were approved since ``version``, all of them or, when it fails, none."""
        async with self._refreshing:
            started = time.perf_counter()
            newer = await connection.fetch(STATEMENTS["newer_changes"], self.version)
            if not newer:
                return
            change_id, version = newer[0]
            taken = self.ahead.pop(change_id, None) if len(newer) == 1 else None
            if taken is None:
                # By now there may be more, and none of them less.
                rows = await connection.fetch(CHANGED_RULES, self.version)
                taken, version = await _taken(rows), max(row[0] for row in rows)
            # No await from here: nobody decides by half a change.
            for kind, rules in taken.rules.items():
                self._places[kind].update(rules)
            replaced = {(kind, s) for kind, s in self.unreadable if s in taken.subjects[kind]}
            self.unreadable = (self.unreadable - replaced) | taken.unreadable
            self.version = version
        _tell(self, taken.unreadable, seconds=time.perf_counter() - started)

    async def read_ahead(self, connection: "asyncpg.Connection[Any]") -> None:
        """Reads large changes while they wait, so that no batch has to when they are approved."""
        known = list(self._whole)
        waiting = dict(await connection.fetch(STATEMENTS["waiting_fleets"], AHEAD_RULES_MIN, known))
        self._whole = set(waiting)
        for change_id in self.ahead.keys() - waiting.keys():
            del self.ahead[change_id]
        room = AHEAD_RULES_MAX
        for change_id, rule_count in waiting.items():
            room -= rule_count
            if room >= 0 and change_id not in self.ahead:
                self.ahead[change_id] = await _taken(
                    await connection.fetch(STATEMENTS["rules_of_change"], change_id)
                )


class RuleReader:
    """Keeps a book up to date between batches; a ``PeriodicReader`` calls ``refresh``.

    So the first batch of a new worker does not wait, under its locks, for rules that were there before it.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", book: RuleBook) -> None:
        self._pool = pool
        self._book = book

    async def refresh(self) -> None:
        """
        Raises:
            DatabaseUnavailableError: the database does not answer; what was known stays.
        """
        async with acquired(self._pool) as connection:
            await self._book.refresh(connection)
            await self._book.read_ahead(connection)


async def _taken(rows: "Sequence[asyncpg.Record]") -> Taken:
    """What rows of ``changed_rules`` say, read with pauses for other calls."""
    taken = Taken()
    until_pause = SUBJECTS_AT_ONCE
    for _, kind, content, subjects in rows:
        _take(taken, kind, subjects, _rule_of(kind, content))
        until_pause -= len(subjects)
        if until_pause <= 0:
            until_pause = SUBJECTS_AT_ONCE
            await asyncio.sleep(0)
    return taken


def _rule_of(kind: str, content: str) -> Rule | None:
    """The rule, or None when this release cannot read it: it was approved under a newer one."""
    try:
        return parse_rule(kind, json.loads(content))
    except ValueError:
        return None


def _take(taken: Taken, kind: str, subjects: list[str], rule: Rule | None) -> None:
    """Adds a rule for its subjects; None is one that cannot be read."""
    taken.subjects[kind].update(subjects)
    if rule is None:
        taken.unreadable.update((kind, subject) for subject in subjects)
        if kind not in UNREADABLE_RULES:
            return
        rule = UNREADABLE_RULES[kind]
    rules = taken.rules[kind]
    for subject in subjects:
        if kind in ("merchant", "terminal"):
            acquirer, _, identifier = subject.partition("/")
            rules[sys.intern(acquirer), identifier] = rule
            continue
        try:
            check_subject(kind, subject)
        except ValueError:
            # A channel that this release does not have: nothing of it can be asked of this worker.
            taken.unreadable.add((kind, subject))
            continue
        rules[_KEYS[kind](subject)] = rule


_KEYS: dict[str, Any] = {
    "limit": lambda subject: Channel[subject.upper()],
    "wallet": int,
    "acceptance": str,
}


def _tell(book: RuleBook, unreadable: set[tuple[str, str]], *, seconds: float) -> None:
    telemetry.rules_version().set(book.version)
    telemetry.RULES_UNREADABLE.set(len(book.unreadable))
    telemetry.RULES_REFRESH_SECONDS.observe(seconds)
    for kind in sorted({kind for kind, _ in unreadable}):
        count = sum(1 for other, _ in unreadable if other == kind)
        log.error(
            "%d rules of kind %s cannot be read by this release: what they are about is refused", count, kind
        )
