"""Who may take which step of a change of rules, and what a request id may stand for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from server.errors import MalformedFieldError, NotGrantedError, RequestIdReusedError, StateConflictError
from server.rulebook import lifecycle, proposal
from server.rulebook.lifecycle import Change, ChangeState, UsedRequest

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHANGE_ID = "00000000-0000-0000-0000-000000000001"


class Lines:
    """One content for some subjects, as the wire brings it."""

    def __init__(self, content: str, *subjects: str) -> None:
        self.content = content
        self.subjects = subjects


def change(**fields: Any) -> Change:
    facts: dict[str, Any] = {
        "change_id": CHANGE_ID,
        "change_number": 1,
        "kind": "terminal",
        "rule_count": 2,
        "base_version": 2,
        "state": ChangeState.PROPOSED,
        "justification": "why",
        "proposed_by": "op-a",
        "proposed_at": NOW,
        "decided_by": None,
        "decided_at": None,
        "version": None,
    }
    return Change(**facts | fields)


def test_the_proposer_never_approves_whatever_the_state() -> None:
    for state in ChangeState:
        with pytest.raises(NotGrantedError) as caught:
            lifecycle.require_approver(change(state=state), participant_id="op-a")
        assert caught.value.reason == "SECOND_PERSON_REQUIRED"
    lifecycle.require_approver(change(), participant_id="op-b")


@pytest.mark.parametrize("state", [ChangeState.APPROVED, ChangeState.REJECTED])
def test_what_was_decided_is_not_decided_again(state: ChangeState) -> None:
    decided = change(state=state, decided_by="op-b")
    with pytest.raises(StateConflictError, match=state.value):
        lifecycle.require_approver(decided, participant_id="op-c")
    with pytest.raises(StateConflictError, match=state.value):
        lifecycle.require_undecided(decided)
    with pytest.raises(StateConflictError, match=state.value):
        lifecycle.require_extender(decided, participant_id="op-a")
    assert lifecycle.is_decided_so(decided, state, participant_id="op-b")
    assert not lifecycle.is_decided_so(decided, state, participant_id="op-c")
    assert not lifecycle.is_decided_so(decided, ChangeState.PROPOSED, participant_id="op-b")


def test_only_the_proposer_adds_and_only_what_was_announced() -> None:
    with pytest.raises(NotGrantedError) as caught:
        lifecycle.require_extender(change(), participant_id="op-b")
    assert caught.value.reason == "NOT_THE_PROPOSER"
    lifecycle.require_extender(change(), participant_id="op-a")
    lifecycle.require_room(change(), rules_given=1, rules_added=1)
    with pytest.raises(StateConflictError):
        lifecycle.require_room(change(), rules_given=1, rules_added=2)
    lifecycle.require_whole(change(), 2)
    with pytest.raises(StateConflictError):
        lifecycle.require_whole(change(), 1)


@pytest.mark.parametrize(
    ("used", "field"),
    [
        ({}, None),
        ({"state": ChangeState.REJECTED}, "call"),
        ({"state": None, "part_number": 1, "decided_by": None}, "call"),
        ({"change_id": "another"}, "change_id"),
        ({"decided_by": "op-c"}, "caller"),
    ],
)
def test_an_id_of_a_decision_stands_for_it_alone(used: dict[str, Any], field: str | None) -> None:
    facts = {"change_id": CHANGE_ID, "part_number": None, "state": ChangeState.APPROVED, "decided_by": "op-b"}

    def require() -> None:
        lifecycle.require_same_decision(
            UsedRequest(**facts | used), ChangeState.APPROVED, change_id=CHANGE_ID, participant_id="op-b"
        )

    if field is None:
        require()
        return
    with pytest.raises(RequestIdReusedError) as caught:
        require()
    assert caught.value.field == field


def test_proposed_rules_keep_which_content_is_whose() -> None:
    rules = proposal.proposed_rules(
        "terminal",
        [Lines('{"is_blocked": true}', "bank-a/T1", "bank-b/T1"), Lines("{}", "bank-c/T1")],
    )
    assert rules.subjects == ["bank-a/T1", "bank-b/T1", "bank-c/T1"]
    assert [rules.contents[place] for place in rules.places] == [
        {"is_blocked": True},
        {"is_blocked": True},
        {},
    ]
    assert proposal.acquirers("terminal", rules) == {"bank-a", "bank-b", "bank-c"}
    assert rules.path_of("bank-b") == "rules[0].subjects[1]"
    assert rules.path_of("bank-c") == "rules[1].subjects[0]"


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([], "rules"),
        ([Lines("{}")], "rules"),
        ([Lines("{}", *(f"bank-a/{n}" for n in range(5_001)))], "rules"),
        ([Lines("{}", "bank-a/1"), Lines("{}")], "rules[1].subjects"),
        ([Lines("{}", "bank-a/1", "bank-a/1")], "rules[0].subjects[1]"),
        ([Lines("{}", "bank-a/1"), Lines("{}", "bank-a/2", "bank-a/1")], "rules[1].subjects[1]"),
        ([Lines("{}", "bank-a/1"), Lines("{}", "bank-a")], "rules[1].subjects[0]"),
        ([Lines("{}", "bank-a/1"), Lines("{", "bank-a/2")], "rules[1].content"),
        ([Lines('{"blocked": true}', "bank-a/1")], "rules[0].content"),
    ],
)
def test_malformed_rules_are_named_by_their_place(lines: list[Lines], field: str) -> None:
    with pytest.raises(MalformedFieldError) as caught:
        proposal.proposed_rules("terminal", lines)
    assert caught.value.field == field
    assert "bank-a" not in caught.value.message


@pytest.mark.parametrize(
    ("announced", "count"), [(0, 2), (2, 2), (200_000, 200_000), (1, None), (200_001, None)]
)
def test_a_change_announces_as_many_rules_as_it_has_at_least(announced: int, count: int | None) -> None:
    rules = proposal.proposed_rules("terminal", [Lines("{}", "bank-a/1", "bank-a/2")])
    if count is not None:
        assert proposal.rule_count(announced, rules) == count
        return
    with pytest.raises(MalformedFieldError) as caught:
        proposal.rule_count(announced, rules)
    assert caught.value.field == "rule_count"


def test_the_same_rules_are_the_same_in_any_spelling_and_others_are_named() -> None:
    def given(content: str, *subjects: str) -> proposal.ProposedRules:
        return proposal.proposed_rules("merchant", [Lines(content, *subjects)])

    kept = {"bank-a/1": '{"category": "5411", "is_blocked": true}'}
    proposal.require_same_rules(kept, given('{"is_blocked":true,"category":"5411"}', "bank-a/1"))
    for rules, field in (
        (given('{"category": "5411"}', "bank-a/1"), "rules[0].content"),
        (given('{"category": "5411", "is_blocked": true}', "bank-a/2"), "rules"),
        (given('{"category": "5411", "is_blocked": true}', "bank-a/1", "bank-a/2"), "rules"),
    ):
        with pytest.raises(RequestIdReusedError) as caught:
            proposal.require_same_rules(kept, rules)
        assert caught.value.field == field
