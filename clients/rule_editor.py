"""An operator who looks after the rules over gRPC: proposes, approves, and reads what is in force and what was.

Nothing changes by one person: what one proposes, another approves. A fleet is proposed in parts that fit into messages,
and approved as one change.
"""

import uuid
from collections.abc import AsyncIterator, Sequence

from onecard.v1 import rules_pb2 as pb

from clients.channel import OneCardChannel, new_request_id
from clients.service_client import OneCardClient

PAGE_SIZE = 1_000
# A part stays well below the smallest message a core may be set to take.
RULES_PER_PART = 2_000
PART_BYTES_MAX = 48 << 10
# For the ids of the parts that follow the first: made from the change's id, so that a proposal that broke off half-way
# goes on when it is sent again.
PART_NAMES = uuid.UUID("5ad0c1a6-4b0c-4f2e-9c9e-0d6c2f6f1d1b")


class RuleEditor:
    """One operator. Each method raises ``OneCardCallError`` when there is no answer.

    Requests take the id of the caller's choice, so that one whose answer was lost is carried out once.
    """

    def __init__(self, channel: OneCardChannel) -> None:
        self._client = OneCardClient(channel)

    async def rules(self, kind: "pb.RuleKind.ValueType", prefix: str = "") -> AsyncIterator[pb.RuleInForce]:
        """The rules of a kind that are in force, by subject."""
        token = ""
        while True:
            page = await self._client.list_rules(
                pb.ListRulesRequest(kind=kind, subject_prefix=prefix, page_size=PAGE_SIZE, page_token=token)
            )
            for rule in page.rules:
                yield rule
            if not (token := page.next_page_token):
                return

    async def propose(
        self,
        kind: "pb.RuleKind.ValueType",
        rules: Sequence[tuple[str, str]],
        *,
        why: str,
        request_id: str = "",
    ) -> pb.RuleChange:
        """Proposes rules of one kind as one change: pairs of a subject and a JSON object, each subject once."""
        parts = parts_of(rules)
        request = pb.ProposeRuleChangeRequest(
            request_id=request_id or new_request_id(),
            kind=kind,
            justification=why,
            rules=parts[0] if parts else [],
            rule_count=len(rules),
        )
        change = (await self._client.propose_rule_change(request)).change
        for number, part in enumerate(parts[1:], start=2):
            await self._client.extend_rule_change(
                pb.ExtendRuleChangeRequest(
                    request_id=str(uuid.uuid5(PART_NAMES, f"{change.change_id}/{number}")),
                    change_id=change.change_id,
                    rules=part,
                )
            )
        return change

    async def approve(self, change_id: str, *, request_id: str = "") -> pb.RuleChange:
        """Puts in force what another operator proposed."""
        request = pb.ApproveRuleChangeRequest(request_id=request_id or new_request_id(), change_id=change_id)
        return (await self._client.approve_rule_change(request)).change

    async def reject(self, change_id: str, *, request_id: str = "") -> pb.RuleChange:
        """Rejects a change, or withdraws this operator's own."""
        request = pb.RejectRuleChangeRequest(request_id=request_id or new_request_id(), change_id=change_id)
        return (await self._client.reject_rule_change(request)).change

    async def change(self, change_id: str, *, rules_max: int, after: str = "") -> pb.GetRuleChangeResponse:
        """A change, and its first ``rules_max`` rules (1 to 1,000) after a subject."""
        return await self._client.get_rule_change(
            pb.GetRuleChangeRequest(change_id=change_id, page_size=rules_max, page_token=after)
        )

    async def changes(
        self,
        *,
        kind: "pb.RuleKind.ValueType" = pb.RULE_KIND_UNSPECIFIED,
        subject: str = "",
        only_proposed: bool = False,
    ) -> AsyncIterator[pb.RuleChange]:
        """Changes, the latest first; of all kinds, of one, or of one subject."""
        token = ""
        while True:
            page = await self._client.list_rule_changes(
                pb.ListRuleChangesRequest(
                    kind=kind,
                    subject=subject,
                    only_proposed=only_proposed,
                    page_size=PAGE_SIZE,
                    page_token=token,
                )
            )
            for change in page.changes:
                yield change
            if not (token := page.next_page_token):
                return


def parts_of(rules: Sequence[tuple[str, str]]) -> list[list[pb.ProposedRule]]:
    """Rules in parts that fit into a message each; within a part, subjects of one content stand together."""
    parts: list[dict[str, list[str]]] = []
    count = size = 0
    for subject, content in rules:
        added = len(subject) + 4
        if not parts or content not in parts[-1]:
            added += len(content.encode()) + 8
        if not parts or count == RULES_PER_PART or size + added > PART_BYTES_MAX:
            parts.append({})
            count, size = 0, 0
            added = len(subject) + 4 + len(content.encode()) + 8
        parts[-1].setdefault(content, []).append(subject)
        count, size = count + 1, size + added
    return [
        [pb.ProposedRule(content=content, subjects=subjects) for content, subjects in part.items()]
        for part in parts
    ]
