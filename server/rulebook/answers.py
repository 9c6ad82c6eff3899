"""What operators are told of rules and of their changes."""

from datetime import datetime

from onecard.v1 import rules_pb2 as pb

from server.rulebook.lifecycle import Change, ChangeState
from server.rulebook.store import ChangedRule, RuleInForce

KINDS = {
    pb.RULE_KIND_LIMIT: "limit",
    pb.RULE_KIND_WALLET: "wallet",
    pb.RULE_KIND_MERCHANT: "merchant",
    pb.RULE_KIND_TERMINAL: "terminal",
    pb.RULE_KIND_ACCEPTANCE: "acceptance",
}
_KIND_NUMBERS = {kind: number for number, kind in KINDS.items()}
_STATES = {
    ChangeState.PROPOSED: pb.RULE_CHANGE_STATE_PROPOSED,
    ChangeState.APPROVED: pb.RULE_CHANGE_STATE_APPROVED,
    ChangeState.REJECTED: pb.RULE_CHANGE_STATE_REJECTED,
}


def proposal_message(change: Change) -> pb.RuleChange:
    """A change as it was proposed, whatever became of it: a repeated proposal is told the same."""
    return pb.RuleChange(
        change_id=change.change_id,
        kind=_KIND_NUMBERS[change.kind],
        state=pb.RULE_CHANGE_STATE_PROPOSED,
        rule_count=change.rule_count,
        justification=change.justification,
        proposed_by=change.proposed_by,
        proposed_at_unix_ms=_unix_ms(change.proposed_at),
    )


def change_message(change: Change) -> pb.RuleChange:
    """A change as it is."""
    message = proposal_message(change)
    message.state = _STATES[change.state]
    if change.decided_at is not None:
        message.decided_by = change.decided_by or ""
        message.decided_at_unix_ms = _unix_ms(change.decided_at)
    message.version = change.version or 0
    return message


def rule_message(rule: RuleInForce) -> pb.RuleInForce:
    """A rule in force."""
    return pb.RuleInForce(
        subject=rule.subject, content=rule.content, version=rule.version, change_id=rule.change_id
    )


def changed_rule_message(rule: ChangedRule) -> pb.ChangedRule:
    """A rule of a change."""
    return pb.ChangedRule(
        subject=rule.subject, content=rule.content, content_before=rule.content_before or ""
    )


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
