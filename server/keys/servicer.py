"""KeyService on the wire: check, convert, call. For operators only, and never a component or a key in a text."""

from typing import Any

import grpc
from onecard.v1 import keys_pb2 as pb
from onecard.v1 import keys_pb2_grpc

from crypto.key_store.checks import ArqcCheck
from crypto.keys import KeyRef
from server.edge import fields
from server.edge.chip import FIRST_PSN, SESSION_METHODS, presented_cryptogram, transaction_data
from server.edge.operator_requests import (
    operator_id,
    parse_change_id,
    row_number,
    rows_of_page,
)
from server.errors import MalformedFieldError
from server.keys import shapes
from server.keys.approval import KeyApprovals
from server.keys.proposal import justification, key_name
from server.keys.reading import KeyReading
from server.keys.service import KeyChanges

Context = grpc.aio.ServicerContext
PAN_DIGITS_MIN, PAN_DIGITS_MAX = 12, 19
COMPONENT_BYTES_MAX = 32


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Administers keys, always by two operators."""

    def __init__(self, *, changes: KeyChanges, approvals: KeyApprovals, reading: KeyReading) -> None:
        self._changes = changes
        self._approvals = approvals
        self._reading = reading

    async def ListKeys(
        self, request: pb.ListKeysRequest, context: "Context[Any, Any]"
    ) -> pb.ListKeysResponse:
        operator_id()
        return await self._reading.keys()

    async def ProposeKeyChange(
        self, request: pb.ProposeKeyChangeRequest, context: "Context[Any, Any]"
    ) -> pb.ProposeKeyChangeResponse:
        participant_id = operator_id()
        # The letter case of an id is no content.
        request.request_id = fields.request_id(request.request_id)
        return await self._changes.propose(
            request, justification=justification(request.justification), participant_id=participant_id
        )

    async def SubmitKeyComponent(
        self, request: pb.SubmitKeyComponentRequest, context: "Context[Any, Any]"
    ) -> pb.SubmitKeyComponentResponse:
        participant_id = operator_id()
        request_id, change_id = fields.request_id(request.request_id), parse_change_id(request.change_id)
        if not 1 <= len(request.component) <= COMPONENT_BYTES_MAX:
            raise MalformedFieldError("component", "must be as long as the key, and not all zero")
        return await self._changes.submit_component(
            change_id=change_id,
            request_id=request_id,
            component=request.component,
            participant_id=participant_id,
        )

    async def ApproveKeyChange(
        self, request: pb.ApproveKeyChangeRequest, context: "Context[Any, Any]"
    ) -> pb.ApproveKeyChangeResponse:
        participant_id = operator_id()
        return await self._approvals.approve(
            parse_change_id(request.change_id), participant_id=participant_id
        )

    async def RejectKeyChange(
        self, request: pb.RejectKeyChangeRequest, context: "Context[Any, Any]"
    ) -> pb.RejectKeyChangeResponse:
        participant_id = operator_id()
        return await self._changes.reject(parse_change_id(request.change_id), participant_id=participant_id)

    async def ListKeyChanges(
        self, request: pb.ListKeyChangesRequest, context: "Context[Any, Any]"
    ) -> pb.ListKeyChangesResponse:
        operator_id()
        return await self._reading.changes(
            only_proposed=request.only_proposed,
            below=row_number(request.page_token),
            rows_max=rows_of_page(request.page_size),
        )

    async def ListKeyAudit(
        self, request: pb.ListKeyAuditRequest, context: "Context[Any, Any]"
    ) -> pb.ListKeyAuditResponse:
        operator_id()
        return await self._reading.audit(
            key_name=shapes.name("key_name", request.key_name) if request.key_name else "",
            below=row_number(request.page_token),
            rows_max=rows_of_page(request.page_size),
        )

    async def ExplainArqc(
        self, request: pb.ExplainArqcRequest, context: "Context[Any, Any]"
    ) -> pb.ExplainArqcResponse:
        participant_id = operator_id()
        key = key_name("key", request.key)
        pan = request.pan
        if not (PAN_DIGITS_MIN <= len(pan) <= PAN_DIGITS_MAX and pan.isascii() and pan.isdigit()):
            raise MalformedFieldError("pan", f"must be {PAN_DIGITS_MIN} to {PAN_DIGITS_MAX} digits")
        psn = fields.digits("psn", request.psn, size=2, default=request.chip.psn or FIRST_PSN)
        if request.chip.psn not in ("", psn):
            raise MalformedFieldError("chip.psn", "must be empty or the same as psn")
        amount_minor = fields.amount_minor("amount_minor", request.amount_minor, minimum=0)
        if request.session_key_method not in SESSION_METHODS:
            raise MalformedFieldError("session_key_method", "must be one of the named values")
        presented = presented_cryptogram("chip", request.chip, pan=pan, amount_minor=amount_minor)
        check = ArqcCheck(
            key=KeyRef(key.name, key.version),
            pan=pan,
            psn=psn,
            data=presented.data,
            atc=request.chip.atc,
            arqc=request.chip.arqc,
            session_method=SESSION_METHODS[request.session_key_method],
        )
        return await self._reading.explain(
            check,
            transaction=transaction_data(request.chip, amount_minor=amount_minor),
            iad=request.chip.iad,
            participant_id=participant_id,
        )
