"""What operators read of rules and of their changes, page by page."""

from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg
from google.protobuf.message import Message
from onecard.v1 import rules_pb2 as pb

from server.database.pool import own_transaction
from server.rulebook import answers, store

# A page stays below the smallest message that a core may be set to send.
PAGE_BYTES_MAX = 48 << 10

M = TypeVar("M", bound=Message)


class RuleReading:
    """The steps that change nothing, each for an operator whom the caller has checked.

    Each raises ``DatabaseUnavailableError`` when the database does not answer.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def rules(
        self, *, kind: str, subject_prefix: str, after: str, rows_max: int
    ) -> pb.ListRulesResponse:
        """A page of the rules in force."""
        async with own_transaction(self._pool) as connection:
            rules = await store.list_rules(
                connection, kind=kind, subject_prefix=subject_prefix, after=after, rows_max=rows_max + 1
            )
        page = _fitting([answers.rule_message(rule) for rule in rules[:rows_max]])
        return pb.ListRulesResponse(
            rules=page, next_page_token=page[-1].subject if len(rules) > len(page) else ""
        )

    async def change(self, change_id: str, *, after: str, rows_max: int) -> pb.GetRuleChangeResponse:
        """A change with a page of its rules.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with own_transaction(self._pool) as connection:
            change = await store.read_change(connection, change_id)
            rules_given = await store.count_rules(connection, change_id)
            rules = await store.list_change_rules(connection, change, after=after, rows_max=rows_max + 1)
        page = _fitting([answers.changed_rule_message(rule) for rule in rules[:rows_max]])
        return pb.GetRuleChangeResponse(
            change=answers.change_message(change),
            rules_given=rules_given,
            rules=page,
            next_page_token=page[-1].subject if len(rules) > len(page) else "",
        )

    async def changes(
        self, *, kind: str, subject: str, only_proposed: bool, below: int | None, rows_max: int
    ) -> pb.ListRuleChangesResponse:
        """A page of changes."""
        async with own_transaction(self._pool) as connection:
            changes = await store.list_changes(
                connection,
                kind=kind,
                subject=subject,
                only_proposed=only_proposed,
                below=below,
                rows_max=rows_max + 1,
            )
        page = _fitting([answers.change_message(change) for change in changes[:rows_max]])
        return pb.ListRuleChangesResponse(
            changes=page,
            next_page_token=str(changes[len(page) - 1].change_number) if len(changes) > len(page) else "",
        )


def _fitting(messages: Sequence[M]) -> list[M]:
    """The first of them that fit into a page; one at least, if there is any."""
    size, page = 0, list[M]()
    for message in messages:
        size += message.ByteSize()
        if page and size > PAGE_BYTES_MAX:
            break
        page.append(message)
    return page
