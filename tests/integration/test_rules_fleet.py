"""A fleet is proposed in parts and approved as one change: all of it is in force at once, or nothing."""

import json
import urllib.request

import grpc
import pytest
from core_under_test import Core, new_id, refusal_of
from onecard.v1 import rules_pb2 as pb
from rule_operators import ACQUIRER, RuleOffice, proposal, proposed
from running_instance import eventually

from clients.channel import ClientCredentials, OneCardChannel
from clients.errors import OneCardCallError
from clients.rule_editor import PART_BYTES_MAX, RULES_PER_PART, RuleEditor, parts_of
from server.development_ca import issue_participant_certificate
from server.rulebook.book import RuleBook

FLEET = 12_000


def editor(core: Core, participant_id: str) -> OneCardChannel:
    issue_participant_certificate(core.data_dir, participant_id)
    credentials = ClientCredentials.of_participant(core.data_dir, participant_id)
    return OneCardChannel(core.address, credentials, channels=2, deadline_s=30)


def test_parts_fit_into_messages_and_lose_nothing() -> None:
    rules = [(f"bank-a/T{n:07}", json.dumps({"mac_key": f"bdk-{n % 7}"})) for n in range(5_000)]
    rules += [(f"bank-a/U{n}", json.dumps({"mac_key": f"{n:048}"})) for n in range(3_000)]
    parts = parts_of(rules)
    told = [(subject, rule.content) for part in parts for rule in part for subject in rule.subjects]
    assert sorted(told) == sorted(rules)
    for part in parts:
        request = pb.ExtendRuleChangeRequest(request_id=new_id(), change_id=new_id(), rules=part)
        assert request.ByteSize() < PART_BYTES_MAX + 1_000
        assert 1 <= sum(len(rule.subjects) for rule in part) <= RULES_PER_PART
        assert len({rule.content for rule in part}) == len(part)
    assert parts_of([]) == []


async def test_a_fleet_is_in_force_as_one_change(office: RuleOffice, rule_core: Core) -> None:
    rules = [
        (f"{ACQUIRER}/F{n:07}", json.dumps({"mac_key": f"bdk-{n % 50:02}", "gives_cash": n % 3 == 0}))
        for n in range(FLEET)
    ]
    book = RuleBook()
    await book.refresh(rule_core.database)
    async with editor(rule_core, "rule-operator-01") as channel:
        change = await RuleEditor(channel).propose(pb.RULE_KIND_TERMINAL, rules, why="new fleet")
        # Sent again, for instance because it broke off: nothing is there twice.
        again = await RuleEditor(channel).propose(
            pb.RULE_KIND_TERMINAL, rules, why="new fleet", request_id=change.change_id
        )
    assert again == change
    assert change.rule_count == FLEET
    shown = await office.two.get(change.change_id, page_size=1_000)
    assert shown.rules_given == FLEET
    assert shown.rules[0].subject == rules[0][0]
    await book.refresh(rule_core.database)
    assert (ACQUIRER, "F0000001") not in book.terminals
    approved = await office.two.approve(change.change_id)
    await book.refresh(rule_core.database)
    assert book.version == approved.version
    assert sum(1 for acquirer, name in book.terminals if name.startswith("F")) == FLEET
    assert book.terminals[ACQUIRER, "F0000003"].gives_cash
    assert book.terminals[ACQUIRER, "F0000003"].mac_key == "bdk-03"
    # Equal rules are one object: a fleet costs no more than its names.
    assert book.terminals[ACQUIRER, "F0000003"] is book.terminals[ACQUIRER, "F0000153"]


async def test_every_worker_takes_what_was_approved(office: RuleOffice, rule_core: Core) -> None:
    approved = await office.done("merchant", {"category": "5411"}, f"{ACQUIRER}/EVERY")
    port = rule_core.facts["metrics_port"]

    def least_version() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [line.split()[-1] for line in lines if line.startswith("onecard_rules_version ")]
        return int(float(values[0])) if values else 0

    # The gauge is that of the most backward worker. None of them had a batch to tell it.
    eventually(lambda: least_version() >= approved.version, wait_s=10)


async def test_a_fleet_whose_parts_are_missing_is_not_approved(office: RuleOffice) -> None:
    change = await office.one.propose("terminal", {}, f"{ACQUIRER}/P1", rule_count=3)
    assert (await office.two.get(change.change_id)).rules_given == 1
    refusal = await refusal_of(office.two.approve(change.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RULE_CHANGE_STATE")
    part = new_id()
    two_more = proposed({"is_blocked": True}, f"{ACQUIRER}/P2", f"{ACQUIRER}/P3")
    assert await office.one.extend(change.change_id, two_more, request_id=part) == 3
    assert await office.one.extend(change.change_id, two_more, request_id=part) == 3
    approved = await office.two.approve(change.change_id)
    assert await office.one.in_force("terminal", f"{ACQUIRER}/P3") == {"is_blocked": True}
    # Repeated after the approval it is told the same, and changes nothing.
    assert await office.one.extend(change.change_id, two_more, request_id=part) == 3
    assert (await office.one.get(change.change_id)).change == approved


async def test_a_repeated_part_is_told_what_it_was_told_though_others_came_since(office: RuleOffice) -> None:
    change = await office.one.propose("terminal", {}, f"{ACQUIRER}/Q1", rule_count=3)
    part, second = new_id(), proposed({}, f"{ACQUIRER}/Q2")
    assert await office.one.extend(change.change_id, second, request_id=part) == 2
    assert await office.one.extend(change.change_id, proposed({}, f"{ACQUIRER}/Q3")) == 3
    assert await office.one.extend(change.change_id, second, request_id=part) == 2
    await office.one.reject(change.change_id)


async def test_only_the_proposer_adds_to_a_proposal_and_only_what_it_announced(office: RuleOffice) -> None:
    change = await office.one.propose("terminal", {}, f"{ACQUIRER}/R1", rule_count=2)
    refusal = await refusal_of(office.two.extend(change.change_id, proposed({}, f"{ACQUIRER}/R2")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_PROPOSER")
    refusal = await refusal_of(office.one.extend(change.change_id, proposed({}, f"{ACQUIRER}/R1")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RULE_REPEATED")
    too_many = proposed({}, f"{ACQUIRER}/R2", f"{ACQUIRER}/R3")
    refusal = await refusal_of(office.one.extend(change.change_id, too_many))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RULE_CHANGE_STATE")
    assert (await office.one.get(change.change_id)).rules_given == 1
    refusal = await refusal_of(office.one.extend(change.change_id, proposed({"name": "w"}, f"{ACQUIRER}/R2")))
    assert refusal.field == "rules[0].content"
    await office.one.reject(change.change_id)


async def test_a_page_of_long_rules_fits_into_the_smallest_message(office: RuleOffice) -> None:
    long_list = {"name": "长" * 40, "merchant_categories": [f"{n:04}" for n in range(450)]}
    request = proposal("wallet", proposed(long_list, *(str(n) for n in range(10, 100))))
    change = await office.one.send(request)
    seen, token = [], ""
    while True:
        page = await office.two.get(change.change_id, page_size=1_000, page_token=token)
        assert page.ByteSize() < 64 << 10
        seen.extend(rule.subject for rule in page.rules)
        if not (token := page.next_page_token):
            break
    assert seen == [str(n) for n in range(10, 100)]
    await office.one.reject(change.change_id)


async def test_a_proposal_that_is_refused_half_way_leaves_no_rule_in_force(
    office: RuleOffice, rule_core: Core
) -> None:
    rules = [(f"{ACQUIRER}/H{n:05}", "{}") for n in range(RULES_PER_PART + 5)]
    rules[-1] = ("no-such-bank/H", "{}")
    request_id = new_id()
    async with editor(rule_core, "rule-operator-01") as channel:
        with pytest.raises(OneCardCallError) as caught:
            await RuleEditor(channel).propose(
                pb.RULE_KIND_TERMINAL, rules, why="half way", request_id=request_id
            )
        assert caught.value.reason == "PARTICIPANT_UNKNOWN"
    refusal = await refusal_of(office.two.approve(request_id))
    assert refusal.reason == "RULE_CHANGE_STATE"
    assert not (await office.one.rules("terminal", f"{ACQUIRER}/H")).rules
    await office.one.reject(request_id)
