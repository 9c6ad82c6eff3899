"""The life of a change of rules, and who may take its steps: from facts alone, without I/O and without a clock."""

import enum
from dataclasses import dataclass
from datetime import datetime

from server.errors import NotGrantedError, RequestIdReusedError, StateConflictError


class ChangeState(enum.Enum):
    """How far a change is; decided ones stay."""

    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of rules of one kind, without its rules.

    ``rule_count`` is how many it is to have, ``base_version`` the newest version when it was proposed.
    """

    change_id: str
    change_number: int
    kind: str
    rule_count: int
    base_version: int
    state: ChangeState
    justification: str
    proposed_by: str
    proposed_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedRequest:
    """What a request id was used for: a part of a proposal (from 1), or a decision."""

    change_id: str
    part_number: int | None
    state: ChangeState | None
    decided_by: str | None


def wrong_change_state(message: str) -> StateConflictError:
    """The change is not in a state that admits the step."""
    return StateConflictError("RULE_CHANGE_STATE", message, field="change_id")


def change_outdated() -> StateConflictError:
    """What the proposer had before them is no longer in force."""
    return StateConflictError(
        "RULE_CHANGE_OUTDATED",
        "a rule for one of its subjects was approved after it was proposed: propose it again",
        field="change_id",
    )


def is_decided_so(change: Change, state: ChangeState, *, participant_id: str) -> bool:
    """Whether this person decided it this way before, and is told the same again."""
    return change.state is state and change.decided_by == participant_id


def require_same_decision(
    used: UsedRequest, state: ChangeState, *, change_id: str, participant_id: str
) -> None:
    """
    Raises:
        RequestIdReusedError: the id stands for something else; names what differs.
    """
    if used.state is not state:
        raise RequestIdReusedError("call")
    if used.change_id != change_id:
        raise RequestIdReusedError("change_id")
    if used.decided_by != participant_id:
        raise RequestIdReusedError("caller")


def require_approver(change: Change, *, participant_id: str) -> None:
    """
    Raises:
        NotGrantedError: it is the proposer.
        StateConflictError: it was decided already.
    """
    if participant_id == change.proposed_by:
        raise NotGrantedError(
            "SECOND_PERSON_REQUIRED", "another operator must approve what one proposed", field="change_id"
        )
    require_undecided(change)


def require_undecided(change: Change) -> None:
    """
    Raises:
        StateConflictError: it was decided already.
    """
    if change.state is not ChangeState.PROPOSED:
        raise wrong_change_state(f"the change is {change.state.value}")


def require_whole(change: Change, rules_given: int) -> None:
    """
    Raises:
        StateConflictError: some of its rules did not come yet.
    """
    if rules_given != change.rule_count:
        raise wrong_change_state("the change lacks rules that its proposer announced")


def require_extender(change: Change, *, participant_id: str) -> None:
    """
    Raises:
        NotGrantedError: it is not the proposer.
        StateConflictError: it was decided already.
    """
    if participant_id != change.proposed_by:
        raise NotGrantedError(
            "NOT_THE_PROPOSER", "only the operator who proposed it may add to it", field="change_id"
        )
    require_undecided(change)


def require_room(change: Change, *, rules_given: int, rules_added: int) -> None:
    """
    Raises:
        StateConflictError: it would have more rules than its proposer announced.
    """
    if rules_given + rules_added > change.rule_count:
        raise wrong_change_state("the change would have more rules than its proposer announced")
