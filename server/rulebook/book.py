"""The rules in force, in a worker's memory: brought up to date by the batch that finds them behind.

A batch reads the highest approved version under its locks; when it differs, the book takes what changed before anything
is decided. So a terminal that was blocked a moment ago is blocked for the next operation, and no rule costs a read.
"""

import json
from typing import Any

import asyncpg

from server.database.statements import load
from server.rulebook.rules import (
    AcceptanceRule,
    Channel,
    LimitRule,
    MerchantRule,
    TerminalRule,
    WalletRule,
    parse_rule,
)

CHANGED_RULES = load("server.rulebook")["changed_rules"]
NO_LIMIT = LimitRule()


class RuleBook:
    """Rules by subject; ``version`` is that of the newest change in it.

    Merchants and terminals are known by acquirer and identifier.
    """

    def __init__(self) -> None:
        self.version = 0
        self.limits: dict[Channel, LimitRule] = dict.fromkeys(Channel, NO_LIMIT)
        self.wallets: dict[int, WalletRule] = {}
        self.merchants: dict[tuple[str, str], MerchantRule] = {}
        self.terminals: dict[tuple[str, str], TerminalRule] = {}
        self.acceptance: dict[str, AcceptanceRule] = {}

    async def refresh(self, connection: "asyncpg.Connection[Any]") -> None:
        """Takes the changes that were approved since ``version``, oldest first."""
        for version, kind, subject, content in await connection.fetch(CHANGED_RULES, self.version):
            self._take(kind, subject, json.loads(content))
            self.version = version

    def _take(self, kind: str, subject: str, content: dict[str, Any]) -> None:
        rule = parse_rule(kind, content)
        match rule:
            case LimitRule():
                self.limits[Channel[subject.upper()]] = rule
            case WalletRule():
                self.wallets[int(subject)] = rule
            case AcceptanceRule():
                self.acceptance[subject] = rule
            case MerchantRule():
                self.merchants[_of_acquirer(subject)] = rule
            case TerminalRule():
                self.terminals[_of_acquirer(subject)] = rule


def _of_acquirer(subject: str) -> tuple[str, str]:
    participant_id, _, identifier = subject.partition("/")
    return participant_id, identifier
