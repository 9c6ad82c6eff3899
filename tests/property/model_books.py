"""What the model of money operations keeps: balances by account, operations and the holds of pre-authorizations."""

from dataclasses import dataclass, field
from typing import Any

import money_requests as m

TOMBSTONE = -1
TOLERANCE_PERCENT = 15
NO_ORIGINAL, NOT_ELIGIBLE, UNDONE = "ORIGINAL_NOT_FOUND", "ORIGINAL_NOT_ELIGIBLE", "ORIGINAL_ALREADY_UNDONE"
EXCEEDED, POOR, APPROVED = "ORIGINAL_AMOUNT_EXCEEDED", "INSUFFICIENT_FUNDS", "APPROVED"
PURCHASES = {m.PURCHASE, m.TAP, m.COMPLETION}
DEBITS = PURCHASES | {m.CASH_WITHDRAWAL}
SOURCES = {m.DEPOSIT: "settlement", m.BENEFIT_CREDIT: "fund", m.REFUND: "settlement", m.VOID: "settlement"}
Answer = tuple[str, int]


@dataclass
class Done:
    """A decided operation, and the hold of a pre-authorization; ``suspense`` is what the wallet could not pay of it."""

    kind: int
    pan: str = ""
    wallet: Any = None
    approved: int = 0
    undone: int = 0
    refunded: int = 0
    suspense: int = 0
    to: Any = "settlement"
    parent: "Done | None" = None
    state: str = ""
    authorized: int = 0
    held: int = 0
    captured: int = 0

    left = property(lambda self: self.approved - self.undone - self.refunded)
    owed = property(lambda self: max(0, self.suspense - self.undone - self.refunded))

    def settle(self, when_empty: str) -> None:
        self.state = "PENDING" if self.held else "CAPTURED" if self.captured else when_empty


@dataclass
class Books:
    """Balances by account, which is (pan, wallet) or a name; answers by request id; operations by id and switch key."""

    posted: dict[Any, int] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)
    keys: dict[Any, str] = field(default_factory=dict)

    def held(self, account: Any) -> int:
        return sum(d.held for d in self.done.values() if d.state and d.wallet == account)

    def available(self, account: Any) -> int:
        return self.posted.get(account, 0) - self.held(account)

    def move(self, debit: Any, credit: Any, amount: int) -> None:
        self.posted[debit] = self.posted.get(debit, 0) - amount
        self.posted[credit] = self.posted.get(credit, 0) + amount

    def take(self, wallet: Any, to: Any, amount: int, owed: int = 0) -> int:
        """Gives what suspense paid: ``owed`` in any case, and what is not there."""
        paid = min(amount - owed, self.available(wallet))
        self.move(wallet, to, paid)
        self.move("suspense", to, amount - paid)
        return amount - paid

    def give_back(self, o: Done, amount: int) -> int:
        """Gives what the wallet got."""
        owed = min(amount, o.owed)
        self.move("settlement", "suspense", owed)
        self.move("settlement", o.wallet, amount - owed)
        return amount - owed
