"""RuleService on the wire: check, convert, call. For operators only."""

from typing import Any

import grpc
from onecard.v1 import rules_pb2 as pb
from onecard.v1 import rules_pb2_grpc

from server.edge import fields
from server.edge.operator_requests import (
    operator_id,
    parse_change_id,
    row_number,
    rows_of_page,
    wrong_page_token,
)
from server.errors import MalformedFieldError
from server.rulebook.answers import KINDS
from server.rulebook.reading import RuleReading
from server.rulebook.rules import check_subject
from server.rulebook.service import RuleChanges

Context = grpc.aio.ServicerContext
SUBJECT_LENGTH_MAX = 49


class RuleServicer(rules_pb2_grpc.RuleServiceServicer):
    """Administers rules, always by two operators."""

    def __init__(self, *, changes: RuleChanges, reading: RuleReading) -> None:
        self._changes = changes
        self._reading = reading

    async def ListRules(
        self, request: pb.ListRulesRequest, context: "Context[Any, Any]"
    ) -> pb.ListRulesResponse:
        operator_id()
        return await self._reading.rules(
            kind=_kind(request.kind),
            subject_prefix=fields.visible(
                "subject_prefix", request.subject_prefix, length_max=SUBJECT_LENGTH_MAX
            ),
            after=_subject_token(request.page_token),
            rows_max=rows_of_page(request.page_size),
        )

    async def ProposeRuleChange(
        self, request: pb.ProposeRuleChangeRequest, context: "Context[Any, Any]"
    ) -> pb.ProposeRuleChangeResponse:
        participant_id = operator_id()
        return await self._changes.propose(
            request,
            request_id=fields.request_id(request.request_id),
            kind=_kind(request.kind),
            participant_id=participant_id,
        )

    async def ExtendRuleChange(
        self, request: pb.ExtendRuleChangeRequest, context: "Context[Any, Any]"
    ) -> pb.ExtendRuleChangeResponse:
        participant_id = operator_id()
        return await self._changes.extend(request, **_ids(request), participant_id=participant_id)

    async def ApproveRuleChange(
        self, request: pb.ApproveRuleChangeRequest, context: "Context[Any, Any]"
    ) -> pb.ApproveRuleChangeResponse:
        participant_id = operator_id()
        return await self._changes.approve(**_ids(request), participant_id=participant_id)

    async def RejectRuleChange(
        self, request: pb.RejectRuleChangeRequest, context: "Context[Any, Any]"
    ) -> pb.RejectRuleChangeResponse:
        participant_id = operator_id()
        return await self._changes.reject(**_ids(request), participant_id=participant_id)

    async def GetRuleChange(
        self, request: pb.GetRuleChangeRequest, context: "Context[Any, Any]"
    ) -> pb.GetRuleChangeResponse:
        operator_id()
        return await self._reading.change(
            parse_change_id(request.change_id),
            after=_subject_token(request.page_token),
            rows_max=rows_of_page(request.page_size),
        )

    async def ListRuleChanges(
        self, request: pb.ListRuleChangesRequest, context: "Context[Any, Any]"
    ) -> pb.ListRuleChangesResponse:
        operator_id()
        kind = _kind(request.kind) if request.kind or request.subject else ""
        if request.subject:
            fields.parsed("subject", check_subject, kind, request.subject)
        return await self._reading.changes(
            kind=kind,
            subject=request.subject,
            only_proposed=request.only_proposed,
            below=row_number(request.page_token),
            rows_max=rows_of_page(request.page_size),
        )


def _kind(number: int) -> str:
    if number not in KINDS:
        raise MalformedFieldError("kind", "must be one of the named values")
    return KINDS[pb.RuleKind.ValueType(number)]


def _ids(request: Any) -> dict[str, str]:
    return {
        "request_id": fields.request_id(request.request_id),
        "change_id": parse_change_id(request.change_id),
    }


def _subject_token(token: str) -> str:
    """Tokens are subjects; nothing is told by one that the list does not tell."""
    try:
        return fields.visible("page_token", token, length_max=SUBJECT_LENGTH_MAX)
    except MalformedFieldError:
        raise wrong_page_token() from None
