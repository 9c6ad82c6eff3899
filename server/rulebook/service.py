"""Changes of rules, each proposed by one operator and decided by another.

Works on the pool with ordinary transactions, because it is rare. Must never let one person alone change a rule, and
never let a version commit before the one below it: a worker that has read it would miss the other for good.
"""

from typing import Any

import asyncpg
from onecard.v1 import rules_pb2 as pb

from server import telemetry
from server.database.pool import own_transaction
from server.errors import AlreadyExistsError, NotFoundError, RequestIdReusedError
from server.rulebook import answers, lifecycle, proposal, store
from server.rulebook.lifecycle import Change, ChangeState, UsedRequest
from server.rulebook.proposal import ProposedRules


class RuleChanges:
    """The steps of a change of rules, each for an operator whom the caller has checked.

    Request and change ids come in canonical form.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def propose(
        self, request: pb.ProposeRuleChangeRequest, *, request_id: str, kind: str, participant_id: str
    ) -> pb.ProposeRuleChangeResponse:
        """Keeps a proposal, or the first part of it.

        Raises:
            OneCardError: see the RPC.
        """
        justification = proposal.justification(request.justification)
        rules = proposal.proposed_rules(kind, request.rules)
        rule_count = proposal.rule_count(request.rule_count, rules)
        async with own_transaction(self._pool) as connection:
            used = await store.find_request(connection, request_id)
            if used is None:
                await _require_participants(connection, kind, rules)
                is_new = await store.insert_change(
                    connection,
                    change_id=request_id,
                    kind=kind,
                    rule_count=rule_count,
                    justification=justification,
                    participant_id=participant_id,
                )
                # A twin that was under way has committed: its row kept this one from being added.
                used = None if is_new else await store.find_request(connection, request_id)
            if used is None:
                await store.insert_rules(
                    connection, rules, request_id=request_id, change_id=request_id, kind=kind
                )
                change = await store.read_change(connection, request_id)
            else:
                if used.part_number is None or used.change_id != request_id:
                    raise RequestIdReusedError("call")
                change = await store.read_change(connection, request_id)
                _require_same_proposal(
                    change,
                    kind=kind,
                    justification=justification,
                    rule_count=rule_count,
                    participant_id=participant_id,
                )
                proposal.require_same_rules(
                    await store.read_part(connection, request_id, used.part_number), rules
                )
        if used is None:
            _count(change, "proposed")
        return pb.ProposeRuleChangeResponse(change=answers.proposal_message(change))

    async def extend(
        self, request: pb.ExtendRuleChangeRequest, *, request_id: str, change_id: str, participant_id: str
    ) -> pb.ExtendRuleChangeResponse:
        """Keeps a further part of a proposal.

        Raises:
            OneCardError: see the RPC.
        """
        async with own_transaction(self._pool) as connection:
            change = await store.lock_change(connection, change_id)
            rules = proposal.proposed_rules(change.kind, request.rules)
            used = await store.find_request(connection, request_id)
            if used is not None:
                part_number = _same_part(used, change, request_id=request_id, participant_id=participant_id)
                proposal.require_same_rules(await store.read_part(connection, change_id, part_number), rules)
            else:
                lifecycle.require_extender(change, participant_id=participant_id)
                await _require_participants(connection, change.kind, rules)
                if await store.has_rule_for_any(connection, change_id, rules.subjects):
                    raise AlreadyExistsError(
                        "RULE_REPEATED", "the change has a rule for one of the subjects", field="rules"
                    )
                lifecycle.require_room(
                    change,
                    rules_given=await store.count_rules(connection, change_id),
                    rules_added=len(rules.subjects),
                )
                part_number = await store.insert_rules(
                    connection, rules, request_id=request_id, change_id=change_id, kind=change.kind
                )
            rules_given = await store.count_rules(connection, change_id, part_max=part_number)
        return pb.ExtendRuleChangeResponse(rules_given=rules_given)

    async def approve(
        self, *, request_id: str, change_id: str, participant_id: str
    ) -> pb.ApproveRuleChangeResponse:
        """Puts a change in force.

        Raises:
            OneCardError: see the RPC.
        """
        change = await self._decide(
            ChangeState.APPROVED, request_id=request_id, change_id=change_id, participant_id=participant_id
        )
        return pb.ApproveRuleChangeResponse(change=answers.change_message(change))

    async def reject(
        self, *, request_id: str, change_id: str, participant_id: str
    ) -> pb.RejectRuleChangeResponse:
        """Ends a change that waits.

        Raises:
            OneCardError: see the RPC.
        """
        change = await self._decide(
            ChangeState.REJECTED, request_id=request_id, change_id=change_id, participant_id=participant_id
        )
        return pb.RejectRuleChangeResponse(change=answers.change_message(change))

    async def _decide(
        self, state: ChangeState, *, request_id: str, change_id: str, participant_id: str
    ) -> Change:
        async with own_transaction(self._pool) as connection:
            change = await store.lock_change(connection, change_id)
            used = await store.find_request(connection, request_id)
            if used is not None:
                lifecycle.require_same_decision(
                    used, state, change_id=change_id, participant_id=participant_id
                )
            if lifecycle.is_decided_so(change, state, participant_id=participant_id):
                return change
            if state is ChangeState.APPROVED:
                lifecycle.require_approver(change, participant_id=participant_id)
                lifecycle.require_whole(change, await store.count_rules(connection, change_id))
                await store.lock_approvals(connection)
                if await store.is_outdated(connection, change):
                    raise lifecycle.change_outdated()
            else:
                lifecycle.require_undecided(change)
            change = await store.decide(
                connection, change, state, participant_id=participant_id, request_id=request_id
            )
        _count(change, state.value.lower())
        return change


async def _require_participants(connection: Any, kind: str, rules: ProposedRules) -> None:
    """
    Raises:
        NotFoundError: a subject belongs to a participant that there is none of.
    """
    unknown = await store.unknown_participants(connection, proposal.acquirers(kind, rules))
    if unknown:
        raise NotFoundError(
            "PARTICIPANT_UNKNOWN", "there is no such participant", field=rules.path_of(min(unknown))
        )


def _require_same_proposal(
    change: Change, *, kind: str, justification: str, rule_count: int, participant_id: str
) -> None:
    """
    Raises:
        RequestIdReusedError: the id stands for another proposal; names what differs.
    """
    if change.proposed_by != participant_id:
        raise RequestIdReusedError("caller")
    if change.kind != kind:
        raise RequestIdReusedError("kind")
    if change.justification != justification:
        raise RequestIdReusedError("justification")
    if change.rule_count != rule_count:
        raise RequestIdReusedError("rule_count")


def _same_part(used: UsedRequest, change: Change, *, request_id: str, participant_id: str) -> int:
    """Number of the part that this request brought before.

    Raises:
        RequestIdReusedError: the id stands for something else; names what differs.
    """
    if used.part_number is None or used.change_id == request_id:
        raise RequestIdReusedError("call")
    if used.change_id != change.change_id:
        raise RequestIdReusedError("change_id")
    if change.proposed_by != participant_id:
        raise RequestIdReusedError("caller")
    return used.part_number


def _count(change: Change, step: str) -> None:
    telemetry.RULE_CHANGES.labels(change.kind, step).inc()
