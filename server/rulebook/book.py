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

CHANGED_RULES = load("server.rulebook")["changed_rules"]
NO_LIMIT = LimitRule()
# Subjects after which other calls get their turn.
SUBJECTS_AT_ONCE = 2_000


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
            rows = await connection.fetch(CHANGED_RULES, self.version)
            if not rows:
                return
            taken: list[tuple[str, dict[Any, Any]]] = []
            seen: set[tuple[str, str]] = set()
            unreadable: set[tuple[str, str]] = set()
            until_pause = SUBJECTS_AT_ONCE
            for _, kind, content, subjects in rows:
                taken.append((kind, _by_key(kind, subjects, _rule_of(kind, content), unreadable)))
                if self.unreadable:
                    seen.update((kind, subject) for subject in subjects)
                until_pause -= len(subjects)
                if until_pause <= 0:
                    until_pause = SUBJECTS_AT_ONCE
                    await asyncio.sleep(0)
            # No await from here: nobody decides by half a change.
            for kind, rules in taken:
                if rules:
                    self._places[kind].update(rules)
            self.unreadable = (self.unreadable - seen) | unreadable
            self.version = max(version for version, *_ in rows)
        _tell(self, unreadable, seconds=time.perf_counter() - started)


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


def _rule_of(kind: str, content: str) -> Rule | None:
    """The rule, or None when this release cannot read it: it was approved under a newer one."""
    try:
        return parse_rule(kind, json.loads(content))
    except ValueError:
        return None


def _by_key(
    kind: str, subjects: list[str], rule: Rule | None, unreadable: set[tuple[str, str]]
) -> dict[Any, Any]:
    """The rule of each subject by its key in the book; adds what cannot be read to ``unreadable``."""
    if rule is None:
        unreadable.update((kind, subject) for subject in subjects)
        if kind not in UNREADABLE_RULES:
            return {}
        rule = UNREADABLE_RULES[kind]
    rules: dict[Any, Any] = {}
    for subject in subjects:
        if kind in ("merchant", "terminal"):
            acquirer, _, identifier = subject.partition("/")
            rules[sys.intern(acquirer), identifier] = rule
            continue
        try:
            check_subject(kind, subject)
        except ValueError:
            # A channel that this release does not have: nothing of it can be asked of this worker.
            unreadable.add((kind, subject))
            continue
        rules[_KEYS[kind](subject)] = rule
    return rules


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
