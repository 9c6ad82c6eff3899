"""A model of all money operations on cards in use: one after another, in memory, sharing no code with the core.

It has no limits, PINs, codes or statuses, and one participant.
"""

from typing import Any

import money_requests as m
from model_books import (
    APPROVED,
    DEBITS,
    EXCEEDED,
    NO_ORIGINAL,
    NOT_ELIGIBLE,
    POOR,
    PURCHASES,
    SOURCES,
    TOLERANCE_PERCENT,
    TOMBSTONE,
    UNDONE,
    Answer,
    Done,
)
from model_reversals import Reversals


class Model(Reversals):
    """Decides as the protos describe it."""

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
        if o.state == "EXPIRED":
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
