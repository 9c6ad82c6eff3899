"""Rules are changed by two operators; every step may be repeated, and history tells who did what."""

import asyncio
import itertools
import json

import grpc
import pytest
from core_under_test import changed, new_id, refusal_of
from onecard.v1 import rules_pb2 as pb
from rule_operators import ACQUIRER, WHY, RuleOffice, proposal, proposed

_numbers = itertools.count(1)


@pytest.fixture
def terminal() -> str:
    """A terminal that no test has used."""
    return f"{ACQUIRER}/T{next(_numbers):07}"


async def test_a_rule_is_in_force_when_another_operator_has_approved_it(
    office: RuleOffice, terminal: str
) -> None:
    change = await office.one.propose("terminal", {"is_blocked": True}, terminal)
    assert await office.two.in_force("terminal", terminal) is None
    approved = await office.two.approve(change.change_id)
    assert await office.three.in_force("terminal", terminal) == {"is_blocked": True}
    assert change.state == pb.RULE_CHANGE_STATE_PROPOSED
    assert (change.proposed_by, change.justification, change.rule_count) == ("rule-operator-01", WHY, 1)
    assert (change.decided_by, change.decided_at_unix_ms, change.version) == ("", 0, 0)
    assert approved.state == pb.RULE_CHANGE_STATE_APPROVED
    assert approved.decided_by == "rule-operator-02"
    assert approved.decided_at_unix_ms >= approved.proposed_at_unix_ms > 0
    assert approved.version > 0


async def test_versions_count_approvals(office: RuleOffice, terminal: str) -> None:
    versions = [(await office.done("terminal", {}, terminal)).version for _ in range(3)]
    assert versions == list(range(versions[0], versions[0] + 3))


async def test_nobody_approves_their_own_proposal(office: RuleOffice, terminal: str) -> None:
    change = await office.one.propose("terminal", {}, terminal)
    refusal = await refusal_of(office.one.approve(change.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_REQUIRED")
    await office.two.approve(change.change_id)
    refusal = await refusal_of(office.one.approve(change.change_id))
    assert refusal.reason == "SECOND_PERSON_REQUIRED"


@pytest.mark.parametrize("by", ["one", "two"])
async def test_a_proposal_is_withdrawn_or_rejected_and_then_stays_so(
    office: RuleOffice, terminal: str, by: str
) -> None:
    change = await office.one.propose("terminal", {}, terminal)
    rejected = await getattr(office, by).reject(change.change_id)
    assert rejected.state == pb.RULE_CHANGE_STATE_REJECTED
    assert (rejected.decided_by, rejected.version) == (getattr(office, by).participant_id, 0)
    assert await getattr(office, by).reject(change.change_id) == rejected
    for call in (
        office.two.approve(change.change_id),
        office.three.reject(change.change_id),
        office.one.extend(change.change_id, proposed({}, f"{ACQUIRER}/X{terminal[-7:]}")),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RULE_CHANGE_STATE")
    assert await office.one.in_force("terminal", terminal) is None


async def test_what_was_approved_is_not_rejected_nor_approved_by_a_third(
    office: RuleOffice, terminal: str
) -> None:
    change = await office.done("terminal", {}, terminal)
    for call in (office.three.approve(change.change_id), office.one.reject(change.change_id)):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RULE_CHANGE_STATE")


async def test_a_proposal_that_others_overtook_is_outdated(office: RuleOffice, terminal: str) -> None:
    """Somebody raised a limit, somebody else lowered it meanwhile: the first proposal must not undo the second."""
    raised = await office.one.propose("terminal", {"gives_cash": True}, terminal, f"{terminal}x")
    untouched = await office.one.propose("terminal", {"gives_cash": True}, f"{terminal}y")
    await office.done("terminal", {"is_blocked": True}, terminal)
    refusal = await refusal_of(office.two.approve(raised.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RULE_CHANGE_OUTDATED")
    assert await office.one.in_force("terminal", terminal) == {"is_blocked": True}
    await office.two.approve(untouched.change_id)
    await office.one.reject(raised.change_id)


async def test_a_subject_of_another_kind_makes_nothing_outdated(office: RuleOffice, terminal: str) -> None:
    change = await office.one.propose("terminal", {}, terminal)
    await office.done("merchant", {}, terminal)
    await office.two.approve(change.change_id)


async def test_a_repeated_request_gets_the_same_answer_byte_for_byte(
    office: RuleOffice, terminal: str
) -> None:
    request = proposal("terminal", proposed('{"is_blocked": true, "mac_key": "k"}', terminal))
    first = await office.one.send(request)
    respelt = changed(
        request,
        request_id=request.request_id.upper(),
        rules=[proposed('{"mac_key":"k","is_blocked":true}', terminal)],
    )
    assert (await office.one.send(respelt)).SerializeToString() == first.SerializeToString()
    approval_id = new_id()
    approved = await office.two.approve(first.change_id, request_id=approval_id)
    assert await office.two.approve(first.change_id, request_id=approval_id) == approved
    assert await office.two.approve(first.change_id) == approved
    # As it was proposed, whatever became of it.
    assert (await office.one.send(request)).SerializeToString() == first.SerializeToString()
    assert (await office.one.get(first.change_id)).change == approved


async def test_a_request_id_stands_for_one_request(office: RuleOffice, terminal: str) -> None:
    request = proposal("terminal", proposed({}, terminal), rule_count=3)
    change = await office.one.send(request)
    other = await office.one.propose("terminal", {}, f"{terminal}o", rule_count=3)
    part = new_id()
    await office.one.extend(change.change_id, proposed({}, f"{terminal}p"), request_id=part)
    decision = new_id()
    await office.one.reject(other.change_id, request_id=decision)
    blocked = proposed({"is_blocked": True}, terminal)
    one, two, chg = office.one, office.two, change.change_id
    cases = [
        (two.send(request), "caller"),
        (one.send(changed(request, kind=pb.RULE_KIND_MERCHANT)), "kind"),
        (one.send(changed(request, justification="other")), "justification"),
        (one.send(changed(request, rule_count=4)), "rule_count"),
        (one.send(changed(request, rules=[blocked])), "rules[0].content"),
        (one.send(changed(request, rules=[proposed({}, f"{terminal}z")])), "rules"),
        (one.send(changed(request, request_id=part)), "call"),
        (one.send(changed(request, request_id=decision)), "call"),
        (one.extend(chg, proposed({"mac_key": "k"}, f"{terminal}p"), request_id=part), "rules[0].content"),
        (one.extend(chg, proposed({}, f"{terminal}q"), request_id=part), "rules"),
        (two.extend(chg, proposed({}, f"{terminal}p"), request_id=part), "caller"),
        (one.extend(other.change_id, proposed({}, f"{terminal}p"), request_id=part), "change_id"),
        (one.extend(chg, proposed({}, terminal), request_id=chg), "call"),
        (two.approve(chg, request_id=decision), "call"),
        (one.reject(chg, request_id=decision), "change_id"),
        (two.reject(other.change_id, request_id=decision), "caller"),
        (two.approve(chg, request_id=chg), "call"),
        (two.reject(chg, request_id=part), "call"),
    ]
    for call, field in cases:
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"), field
        assert refusal.field == field
        assert terminal not in refusal.text
    await one.reject(chg)


async def test_twins_at_two_workers_make_one_change_and_one_version(
    office: RuleOffice, terminal: str
) -> None:
    request = proposal("terminal", proposed({}, terminal))
    twins = [type(office.one)(office.core, office.one.participant_id) for _ in range(6)]
    answers = await asyncio.gather(*(twin.send(request) for twin in twins))
    assert all(answer == answers[0] for answer in answers)
    approvers = [type(office.two)(office.core, office.two.participant_id) for _ in range(6)]
    approvals = await asyncio.gather(
        *(approver.approve(request.request_id, request_id=new_id()) for approver in approvers)
    )
    assert all(approval == approvals[0] for approval in approvals)


async def test_approvals_at_once_get_versions_without_a_gap(office: RuleOffice, terminal: str) -> None:
    changes = [await office.one.propose("terminal", {}, f"{terminal}-{n}") for n in range(8)]
    approvers = [type(office.two)(office.core, office.two.participant_id) for _ in range(4)]
    approved = await asyncio.gather(
        *(approvers[n % 4].approve(change.change_id) for n, change in enumerate(changes))
    )
    versions = sorted(change.version for change in approved)
    assert versions == list(range(versions[0], versions[0] + 8))


async def test_an_approver_sees_what_is_in_force_now_and_history_what_was(
    office: RuleOffice, terminal: str
) -> None:
    first = await office.done("terminal", {"mac_key": "one"}, terminal)
    second = await office.one.propose("terminal", {"mac_key": "two"}, terminal, f"{terminal}n")
    shown = await office.two.get(second.change_id)
    assert [(r.subject, json.loads(r.content), r.content_before) for r in shown.rules] == [
        (terminal, {"mac_key": "two"}, '{"mac_key": "one"}'),
        (f"{terminal}n", {"mac_key": "two"}, ""),
    ]
    assert (shown.rules_given, shown.next_page_token) == (2, "")
    await office.two.approve(second.change_id)
    await office.done("terminal", {"mac_key": "three"}, terminal)
    assert (await office.two.get(second.change_id)).rules == shown.rules
    assert (await office.two.get(first.change_id)).rules[0].content_before == ""


async def test_history_tells_who_and_when_the_latest_first(office: RuleOffice, terminal: str) -> None:
    done = await office.done("terminal", {}, terminal)
    rejected = await office.two.reject((await office.one.propose("terminal", {}, terminal)).change_id)
    waiting = await office.three.propose("terminal", {}, terminal)
    of_subject = await office.one.changes(kind=pb.RULE_KIND_TERMINAL, subject=terminal)
    assert list(of_subject.changes) == [waiting, rejected, done]
    proposed_now = await office.one.changes(only_proposed=True)
    assert waiting in proposed_now.changes
    assert all(change.state == pb.RULE_CHANGE_STATE_PROPOSED for change in proposed_now.changes)
    walked, token = [], ""
    for _ in range(3):
        page = await office.one.changes(
            kind=pb.RULE_KIND_TERMINAL, subject=terminal, page_size=1, page_token=token
        )
        walked.extend(page.changes)
        token = page.next_page_token
    assert (walked, token) == ([waiting, rejected, done], "")
    limits = await office.one.changes(kind=pb.RULE_KIND_LIMIT)
    assert limits.changes[-1].justification == "shipped"
    assert {change.kind for change in limits.changes} == {pb.RULE_KIND_LIMIT}
    await office.one.reject(waiting.change_id)


async def test_rules_in_force_are_listed_by_subject_page_by_page(office: RuleOffice, terminal: str) -> None:
    subjects = [f"{terminal}{end}" for end in ("A", "B", "C", "~", "!")]
    await office.done("terminal", {"mac_key": "old"}, *subjects)
    newest = await office.done("terminal", {"mac_key": "new"}, subjects[1])
    expected = [(s, "new" if s == subjects[1] else "old") for s in sorted(subjects)]
    walked: list[pb.RuleInForce] = []
    token = ""
    for _ in range(3):
        page = await office.one.rules("terminal", terminal, page_size=2, page_token=token)
        walked.extend(page.rules)
        token = page.next_page_token
    assert token == ""
    assert [(rule.subject, json.loads(rule.content)["mac_key"]) for rule in walked] == expected
    (changed_one,) = [rule for rule in walked if rule.subject == subjects[1]]
    assert (changed_one.version, changed_one.change_id) == (newest.version, newest.change_id)
    assert not (await office.one.rules("terminal", "nobody")).rules
    # A prefix is no pattern.
    assert not (await office.one.rules("terminal", "%")).rules


async def test_shipped_rules_are_listed(office: RuleOffice) -> None:
    wallets = (await office.one.rules("wallet")).rules
    assert [wallet.subject for wallet in wallets][:4] == ["1", "2", "3", "4"]
    assert json.loads(wallets[0].content)["name"] == "金融账户"
    assert len((await office.one.rules("limit")).rules) == 7
