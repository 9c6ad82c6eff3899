"""The model's reversals: before or after their original, whole or in part."""

from typing import Any

import money_requests as m
from model_books import (
    APPROVED,
    DEBITS,
    EXCEEDED,
    NO_ORIGINAL,
    NOT_ELIGIBLE,
    SOURCES,
    TOMBSTONE,
    UNDONE,
    Answer,
    Books,
    Done,
)


class Reversals(Books):
    """Undoes what is in the books."""

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
        if o.state in {"PENDING", "CAPTURED"}:
            o.held += min(returned, max(0, o.authorized - o.captured - o.held))
            o.settle("REVERSED")
