"""A worker's rules: what was approved is followed at once, whole, in the order of commits, and never as no rule."""

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from rules_in_force import put_approval, put_proposal, put_rules

from server.rulebook.book import AHEAD_RULES_MIN, CHANGED_RULES, RuleBook
from server.rulebook.rules import (
    UNREADABLE_RULES,
    AcceptanceRule,
    Channel,
    LimitRule,
    MerchantRule,
    TerminalRule,
    WalletRule,
)

SHIPPED_VERSION = 2
WAIT_S = 0.3


async def test_shipped_rules_are_in_force_from_the_start(connections: list[Any]) -> None:
    book = RuleBook()
    await book.refresh(connections[0])
    assert book.version == SHIPPED_VERSION
    assert book.limits[Channel.TAP].transaction_amount_max_minor == 30_000
    assert all(book.limits[channel] != LimitRule() for channel in Channel)
    assert set(book.wallets) == {1, 2, 3, 4}
    assert "5912" in book.wallets[2].merchant_categories
    assert not book.unreadable
    assert (book.merchants, book.terminals, book.acceptance) == ({}, {}, {})


async def test_what_was_approved_is_in_every_book_at_its_next_refresh(connections: list[Any]) -> None:
    books = [RuleBook(), RuleBook()]
    for book, connection in zip(books, connections, strict=False):
        await book.refresh(connection)
    await put_rules(connections[2], "terminal", {"bank-a/T1": {"is_blocked": True}, "bank-a/T2": {}})
    await put_rules(connections[2], "merchant", {"bank-a/M1": {"category": "5411"}})
    await put_rules(connections[2], "acceptance", {"bank-a": {"terminals_registered": True}})
    await put_rules(connections[2], "limit", {"tap": {"transaction_amount_max_minor": 1}})
    await put_rules(connections[2], "wallet", {"1": {"name": "new"}, "5": {"name": "fifth", "cash": True}})
    for book, connection in zip(books, connections, strict=False):
        await book.refresh(connection)
        assert book.version == SHIPPED_VERSION + 5
        assert book.terminals == {
            ("bank-a", "T1"): TerminalRule(is_blocked=True),
            ("bank-a", "T2"): TerminalRule(),
        }
        assert book.merchants == {("bank-a", "M1"): MerchantRule(category="5411")}
        assert book.acceptance == {"bank-a": AcceptanceRule(terminals_registered=True)}
        # The whole rule is replaced: what the new one leaves out is no limit any more.
        assert book.limits[Channel.TAP] == LimitRule(transaction_amount_max_minor=1)
        assert book.wallets[1] == WalletRule(name="new")
        assert book.wallets[5].cash


async def test_of_a_subject_the_newest_approval_is_followed(connections: list[Any]) -> None:
    database = connections[0]
    first = await put_proposal(database, "terminal", {"bank-a/T1": {"mac_key": "proposed-first"}})
    second = await put_proposal(database, "terminal", {"bank-a/T1": {"mac_key": "proposed-second"}})
    await put_approval(database, second)
    behind = RuleBook()
    await behind.refresh(database)
    assert behind.terminals["bank-a", "T1"].mac_key == "proposed-second"
    await put_approval(database, first)
    await behind.refresh(database)
    fresh = RuleBook()
    await fresh.refresh(database)
    for book in (behind, fresh):
        assert book.terminals["bank-a", "T1"].mac_key == "proposed-first"


async def test_only_approved_rules_are_followed(connections: list[Any]) -> None:
    database = connections[0]
    await put_proposal(database, "terminal", {"bank-a/T1": {"is_blocked": True}})
    rejected = await put_proposal(database, "terminal", {"bank-a/T2": {"is_blocked": True}})
    await database.execute(
        "UPDATE rule_changes SET state = 'REJECTED', decided_by = 'test-b', decision_id = gen_random_uuid(),"
        " decided_at = clock_timestamp() WHERE change_id = $1",
        rejected,
    )
    book = RuleBook()
    await book.refresh(database)
    assert (book.version, book.terminals) == (SHIPPED_VERSION, {})


async def test_a_version_waits_for_the_commit_of_the_one_before(connections: list[Any]) -> None:
    slow, fast, reader = connections
    for connection in (slow, fast):
        await connection.execute("SET lock_timeout = 0")
    first = await put_proposal(slow, "terminal", {"bank-a/T1": {}})
    second = await put_proposal(fast, "terminal", {"bank-a/T2": {}})
    book = RuleBook()
    transaction = slow.transaction()
    await transaction.start()
    assert await put_approval(slow, first) == SHIPPED_VERSION + 1
    overtaking = asyncio.create_task(put_approval(fast, second))
    # The second approval may not commit while the first has not: a book would take it and miss the first for good.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(overtaking), WAIT_S)
    await book.refresh(reader)
    assert book.version == SHIPPED_VERSION
    await transaction.commit()
    assert await asyncio.wait_for(overtaking, 10) == SHIPPED_VERSION + 2
    await book.refresh(reader)
    assert set(book.terminals) == {("bank-a", "T1"), ("bank-a", "T2")}


async def test_a_version_that_was_rolled_back_is_given_again(connections: list[Any]) -> None:
    slow, fast, _ = connections
    await fast.execute("SET lock_timeout = 0")
    first = await put_proposal(slow, "terminal", {"bank-a/T1": {}})
    second = await put_proposal(fast, "terminal", {"bank-a/T2": {}})
    transaction = slow.transaction()
    await transaction.start()
    await put_approval(slow, first)
    waiting = asyncio.create_task(put_approval(fast, second))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), WAIT_S)
    await transaction.rollback()
    assert await asyncio.wait_for(waiting, 10) == SHIPPED_VERSION + 1


async def test_a_lane_that_read_less_does_not_put_old_rules_back(connections: list[Any]) -> None:
    database, behind, ahead = connections
    book = RuleBook()
    await put_rules(database, "terminal", {"bank-a/T1": {"is_blocked": False}})
    # This lane's snapshot is taken now, and it is slower than the other.
    snapshot = behind.transaction(isolation="repeatable_read")
    await snapshot.start()
    await behind.fetchval("SELECT max(version) FROM rule_changes")
    await put_rules(database, "terminal", {"bank-a/T1": {"is_blocked": True}})
    await asyncio.gather(book.refresh(ahead), book.refresh(behind))
    await snapshot.rollback()
    assert book.version == SHIPPED_VERSION + 2
    assert book.terminals["bank-a", "T1"].is_blocked


async def test_a_rule_of_a_newer_release_stops_what_it_is_about_and_nothing_else(
    connections: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    database = connections[0]
    newer = {"a_key_of_the_next_release": 1}
    await put_rules(database, "terminal", {"bank-a/T1": newer, "bank-a/T2": {"mac_key": "bdk-01"}})
    await put_rules(database, "merchant", {"bank-a/M1": newer})
    await put_rules(database, "limit", {"tap": newer, "chip": {}, "wave": {}})
    await put_rules(database, "wallet", {"2": newer})
    await put_rules(database, "acceptance", {"bank-b": {"terminals_registered": "perhaps"}})
    book = RuleBook()
    with caplog.at_level(logging.ERROR):
        await book.refresh(database)
    assert book.version == SHIPPED_VERSION + 5
    assert book.terminals["bank-a", "T1"] == UNREADABLE_RULES["terminal"]
    assert book.terminals["bank-a", "T2"] == TerminalRule(mac_key="bdk-01")
    assert book.merchants["bank-a", "M1"] == UNREADABLE_RULES["merchant"]
    assert book.limits[Channel.TAP] == UNREADABLE_RULES["limit"]
    assert book.limits[Channel.CHIP] == LimitRule()
    assert book.wallets[2] == UNREADABLE_RULES["wallet"]
    assert book.acceptance["bank-b"] == UNREADABLE_RULES["acceptance"]
    assert book.unreadable == {
        ("terminal", "bank-a/T1"),
        ("merchant", "bank-a/M1"),
        ("limit", "tap"),
        ("limit", "wave"),
        ("wallet", "2"),
        ("acceptance", "bank-b"),
    }
    assert "2 rules of kind limit cannot be read by this release" in caplog.text
    # A readable rule takes its place.
    await put_rules(database, "terminal", {"bank-a/T1": {}})
    await book.refresh(database)
    assert book.terminals["bank-a", "T1"] == TerminalRule()
    assert ("terminal", "bank-a/T1") not in book.unreadable
    assert len(book.unreadable) == 5


async def test_a_refresh_that_fails_leaves_the_book_as_it_was(connections: list[Any]) -> None:
    database, other, _ = connections
    book = RuleBook()
    await book.refresh(database)
    await put_rules(database, "limit", {"tap": {"day_count_max": 1}})
    await other.close()
    with pytest.raises(asyncpg.InterfaceError):
        await book.refresh(other)
    assert book.version == SHIPPED_VERSION
    await book.refresh(database)
    assert book.limits[Channel.TAP] == LimitRule(day_count_max=1)


async def test_a_fleet_that_waits_is_read_ahead_and_in_force_only_when_approved(
    connections: list[Any],
) -> None:
    database = connections[0]
    fleet = {f"bank-a/T{n:05}": {"mac_key": f"k{n}"} for n in range(1_500)}
    fleet["bank-a/T00007"] = {"a_key_of_the_next_release": 1}
    change_id = await put_proposal(database, "terminal", fleet)
    small = await put_proposal(database, "terminal", {"bank-a/small": {}})
    ahead, plain = RuleBook(), RuleBook()
    for book in (ahead, plain):
        await book.refresh(database)
    await ahead.read_ahead(database)
    assert set(ahead.ahead) == {change_id}
    assert ahead.terminals == {}
    assert ahead.version == SHIPPED_VERSION
    await put_approval(database, change_id)
    for book in (ahead, plain):
        await book.refresh(database)
    assert ahead.terminals == plain.terminals
    assert len(ahead.terminals) == 1_500
    assert ahead.unreadable == plain.unreadable == {("terminal", "bank-a/T00007")}
    assert ahead.version == plain.version == SHIPPED_VERSION + 1
    assert not ahead.ahead
    await put_approval(database, small)
    await ahead.refresh(database)
    assert ("bank-a", "small") in ahead.terminals


async def test_what_was_read_ahead_does_not_hide_what_came_beside_it(connections: list[Any]) -> None:
    database = connections[0]
    fleet = {f"bank-a/T{n:05}": {"mac_key": "fleet"} for n in range(1_000)}
    change_id = await put_proposal(database, "terminal", fleet)
    book = RuleBook()
    await book.refresh(database)
    await book.read_ahead(database)
    await put_rules(database, "terminal", {"bank-a/T00001": {"mac_key": "before"}, "bank-a/other": {}})
    await put_approval(database, change_id)
    await put_rules(database, "terminal", {"bank-a/T00002": {"mac_key": "after"}})
    await book.refresh(database)
    assert book.version == SHIPPED_VERSION + 3
    assert book.terminals["bank-a", "T00001"].mac_key == "fleet"
    assert book.terminals["bank-a", "T00002"].mac_key == "after"
    assert ("bank-a", "other") in book.terminals
    # It waits no more, and is forgotten.
    await book.read_ahead(database)
    assert not book.ahead


async def test_only_whole_fleets_are_read_ahead_and_rejected_ones_forgotten(connections: list[Any]) -> None:
    database = connections[0]
    whole = await put_proposal(database, "terminal", {f"bank-a/T{n}": {} for n in range(1_000)})
    part = await put_proposal(
        database, "merchant", {f"bank-a/M{n}": {} for n in range(1_000)}, rule_count=1_001
    )
    book = RuleBook()
    await book.read_ahead(database)
    assert set(book.ahead) == {whole}
    assert part not in book.ahead
    await database.execute(
        "UPDATE rule_changes SET state = 'REJECTED', decided_by = 'test-b', decision_id = gen_random_uuid(),"
        " decided_at = clock_timestamp() WHERE change_id = $1",
        whole,
    )
    await book.read_ahead(database)
    assert not book.ahead


async def test_one_rule_is_found_at_once_among_many(connections: list[Any]) -> None:
    database = connections[0]
    await put_rules(database, "terminal", {f"bank-a/T{n:07}": {"mac_key": f"k{n}"} for n in range(20_000)})
    await put_rules(database, "terminal", {"bank-a/T0000007": {"is_blocked": True}})
    await database.execute("ANALYZE rule_changes, rule_change_lines")
    plan = await database.fetch(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING off) " + CHANGED_RULES.replace("$1", str(SHIPPED_VERSION + 1))
    )
    # A walk over all terminals takes a third of a second in a full table, under the locks of a batch.
    read = "\n".join(row[0] for row in plan)
    assert "rule_change_lines_pkey" in read
    assert "rule_change_lines_subject_idx" not in read
    assert "Seq Scan on rule_change_lines" not in read


async def test_a_fleet_that_waits_for_more_than_a_day_is_not_read_ahead(connections: list[Any]) -> None:
    database = connections[0]
    await database.execute(
        "INSERT INTO rule_changes (change_id, rule_kind, rule_count, justification, proposed_by, proposed_at)"
        " SELECT gen_random_uuid(), 'terminal', $1, 'old', 'a', now() - age FROM unnest($2::interval[]) AS age",
        AHEAD_RULES_MIN,
        [timedelta(hours=25), timedelta(hours=1)],
    )
    await database.execute(
        "INSERT INTO rule_change_lines SELECT change_id, rule_kind, 1, 'bank-a/T' || n, '{}'"
        " FROM rule_changes, generate_series(1, $1::integer) AS n WHERE justification = 'old'",
        AHEAD_RULES_MIN,
    )
    book = RuleBook()
    await book.refresh(database)
    await book.read_ahead(database)
    young = await database.fetchval(
        "SELECT change_id FROM rule_changes WHERE proposed_at > now() - interval '2 hours' AND justification = 'old'"
    )
    assert set(book.ahead) == {young}
