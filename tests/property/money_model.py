"""A model of all money operations on cards in use: one after another, in memory, sharing no code with the core.

It has no limits, PINs, codes or statuses, and one participant.
"""

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
    is_due: bool = False

    left = property(lambda self: self.approved - self.undone - self.refunded)
    owed = property(lambda self: max(0, self.suspense - self.undone - self.refunded))

    def settle(self, when_empty: str) -> None:
        self.state = "PENDING" if self.held else "CAPTURED" if self.captured else when_empty


@dataclass
class Model:
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

    def decide(self, r: Any) -> Answer:
        """The reason's name and the approved amount."""
        if r.request_id not in self.answers:
            holder = self.keys.setdefault((r.terminal_id, r.stan, m.mti_class_of(r)), r.request_id)
            d = self.done[r.request_id] = Done(r.operation, r.pan, (r.pan, r.wallet or 1))
            if holder == r.request_id:
                o = r.original
                name = o.request_id or self.keys.get((r.terminal_id, o.stan, o.mti_class or 2), "")
                d.parent = self.done.get(name)
                reason, d.approved = self.apply(r, d, d.parent, r.operation, r.amount_minor)
            else:
                is_late = self.done[holder].kind == TOMBSTONE
                reason = "REVERSED_IN_ADVANCE" if is_late else "DUPLICATE_TRANSMISSION"
            self.answers[r.request_id] = reason, d.approved
        return self.answers[r.request_id]

    def apply(self, r: Any, d: Done, o: Done | None, kind: int, amount: int) -> Answer:
        if kind == m.REVERSAL:
            return self.park(r) if o is None else self.reverse(r, d, o)
        if kind in {m.DEPOSIT, m.BENEFIT_CREDIT}:
            self.move(SOURCES[kind], d.wallet, amount)
            return APPROVED, amount
        if not r.HasField("original"):
            d.to = (r.to_pan, 1) if kind == m.TRANSFER else "settlement"
            reason, left = APPROVED, self.available(d.wallet)
            if amount > left and not r.is_advice:
                if not (r.partial_approval_allowed and left):
                    return POOR, 0
                reason, amount = "PARTIALLY_APPROVED", left
            elif amount > left:
                reason = "FORCED_POST"
            if kind == m.PRE_AUTHORIZATION:
                d.authorized = d.held = amount
                d.state = "PENDING"
            else:
                d.suspense = self.take(d.wallet, d.to, amount)
            return reason, amount
        if o is None or o.kind == TOMBSTONE or o.pan != d.pan:
            return NO_ORIGINAL, 0
        of_hold = kind in {m.INCREMENT, m.COMPLETION} or (kind == m.VOID and o.kind == m.PRE_AUTHORIZATION)
        return self.follow_hold(r, d, o, kind, amount) if of_hold else self.give(d, o, kind, amount)

    def follow_hold(self, r: Any, d: Done, o: Done, kind: int, amount: int) -> Answer:
        if not o.state:
            return NOT_ELIGIBLE, 0
        d.wallet = o.wallet
        reason = "" if o.state == "PENDING" else "HOLD_NOT_PENDING"
        if o.state == "EXPIRED" or (o.state == "PENDING" and o.is_due):
            reason = "HOLD_EXPIRED"
        if kind == m.COMPLETION:
            if not reason and amount > o.held + o.authorized * TOLERANCE_PERCENT // 100:
                reason = EXCEEDED
            elif not reason and amount > o.held + self.available(o.wallet):
                reason = POOR
            if reason and not r.is_advice:
                return reason, 0
            o.held -= min(o.held, amount)
            d.suspense = self.take(o.wallet, "settlement", amount)
            o.captured += amount
            o.held = o.held if r.more_completions_follow else 0
            if o.state == "PENDING":
                o.settle("CAPTURED")
            return ("FORCED_POST" if reason else APPROVED), amount
        if not reason and kind == m.INCREMENT and amount > self.available(o.wallet):
            reason = POOR
        if reason:
            return reason, 0
        if kind == m.VOID:
            amount, o.held = o.held, 0
            o.settle("VOIDED")
        else:
            o.held, o.authorized = o.held + amount, o.authorized + amount
        return APPROVED, amount

    def give(self, d: Done, o: Done, kind: int, amount: int) -> Answer:
        """A refund, or the void of a posted operation."""
        if not o.approved or o.kind not in (PURCHASES if kind == m.REFUND else DEBITS):
            return NOT_ELIGIBLE, 0
        if not o.left:
            return UNDONE, 0
        if kind == m.VOID and o.left != o.approved:
            return NOT_ELIGIBLE, 0
        amount = amount or o.left
        if amount > o.left:
            return EXCEEDED, 0
        d.wallet = o.wallet
        self.give_back(o, amount)
        o.refunded += amount * (kind == m.REFUND)
        o.undone += amount * (kind == m.VOID)
        return APPROVED, amount

    def park(self, r: Any) -> Answer:
        name = r.original.request_id or f"tombstone of {r.request_id}"
        self.done[name] = Done(TOMBSTONE)
        self.answers[name] = "REVERSED_IN_ADVANCE", 0
        if r.original.stan:
            self.keys.setdefault((r.terminal_id, r.original.stan, r.original.mti_class or 2), name)
        return "REVERSAL_PARKED", 0

    def reverse(self, r: Any, d: Done, o: Done) -> Answer:
        amount, parent = r.amount_minor, o.parent
        if o.kind == TOMBSTONE:
            return UNDONE, 0
        if o.pan != d.pan:
            return NO_ORIGINAL, 0
        if not o.approved and self.is_declined(o):
            return APPROVED, 0
        d.wallet = o.wallet
        if o.kind == m.PRE_AUTHORIZATION:
            if o.state != "PENDING":
                return (NOT_ELIGIBLE if o.state == "CAPTURED" else UNDONE), 0
            if amount > o.held:
                return EXCEEDED, 0
            amount = amount or o.held
            o.held, o.authorized = o.held - amount, o.authorized - amount
            o.settle("REVERSED")
            return APPROVED, amount
        is_void_of_hold = o.kind == m.VOID and parent is not None and parent.kind == m.PRE_AUTHORIZATION
        if o.kind == m.REVERSAL or is_void_of_hold or (o.kind == m.TRANSFER and r.to_pan != o.to[0]):
            return NOT_ELIGIBLE, 0
        if not o.left or amount > o.left:
            return (EXCEEDED if o.left else UNDONE), 0
        amount = amount or o.left
        if o.kind == m.INCREMENT:
            assert parent is not None
            if parent.state != "PENDING":
                return "HOLD_NOT_PENDING", 0
            amount = min(amount, parent.held)
            parent.held, parent.authorized = parent.held - amount, parent.authorized - amount
            parent.settle("REVERSED")
        elif o.kind == m.TRANSFER:
            self.take(o.to, o.wallet, amount)
        elif o.kind in DEBITS:
            returned = self.give_back(o, amount)
            if o.kind == m.COMPLETION and parent is not None:
                self.hold_again(parent, amount, returned)
        else:
            owed = 0
            if parent is not None:
                owed = -parent.owed
                parent.refunded -= amount * (o.kind == m.REFUND)
                parent.undone -= amount * (o.kind == m.VOID)
                owed += parent.owed
            self.take(o.wallet, SOURCES[o.kind], amount, owed)
        o.undone += amount
        return APPROVED, amount

    def is_declined(self, o: Done) -> bool:
        name = next(name for name, d in self.done.items() if d is o)
        return self.answers[name][0] not in {APPROVED, "FORCED_POST", "PARTIALLY_APPROVED", "REVERSAL_PARKED"}

    def hold_again(self, o: Done, amount: int, returned: int) -> None:
        o.captured -= min(amount, o.captured)
        if o.state in {"PENDING", "CAPTURED"} and not o.is_due:
            o.held += min(returned, max(0, o.authorized - o.captured - o.held))
            o.settle("REVERSED")
