"""CardService on the wire: check, convert, call."""

from collections.abc import Callable
from datetime import date
from typing import Any

import grpc
from onecard.v1 import cards_pb2, cards_pb2_grpc

from crypto.errors import IdentificationCodeInvalidError
from crypto.identification_code import IdentificationCodes
from crypto.sealing import BlindIndex, ColumnSealer
from server.cards import identifiers
from server.cards.directory import CardCipher
from server.cards.rules import LossKind, is_expired
from server.cards.service import (
    CardOperation,
    IssueCards,
    IssueOperation,
    LiftLosses,
    LossOperation,
    ReadStatuses,
    ReportLosses,
    active_key_versions,
    new_card_alias,
)
from server.cards.store import NewCard, RowMaker
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.intake import Intake, outcome_of
from server.engine.group_commit import GroupCommit
from server.engine.operation import OperationKind
from server.errors import MalformedFieldError
from server.key_calls import KeyCalls

Context = grpc.aio.ServicerContext
ATR_HISTORICAL_BYTES_SIZE = 13
BIN_PREFIX = "62"


class CardServicer(cards_pb2_grpc.CardServiceServicer):
    """Issues cards and changes their status."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        sealer: ColumnSealer,
        identification_codes: IdentificationCodes,
        today: Callable[[], date],
        shards: int,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._key_store = keys.store
        self._blind_index = blind_index
        self._identification_codes = identification_codes
        self._today = today
        self._shards = shards
        self._issue = IssueCards(RowMaker(sealer=sealer, blind_index=blind_index))
        self._report_loss = ReportLosses()
        self._lift_loss = LiftLosses()
        self._read_status = ReadStatuses()

    async def IssueCard(
        self, request: cards_pb2.IssueCardRequest, context: "Context[Any, Any]"
    ) -> cards_pb2.IssueCardResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        card = self._new_card(request)
        caller.require_region(card.issuing_region)
        indexes = card.credential_indexes(self._blind_index)
        operation = IssueOperation(
            capability=self._issue,
            kind=OperationKind.ISSUE_CARD,
            shard=int.from_bytes(next(iter(indexes.values()))[:4]) % self._shards,
            card=card,
            indexes=indexes,
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), cards_pb2.IssueCardResponse)

    async def GetCardStatus(
        self, request: cards_pb2.GetCardStatusRequest, context: "Context[Any, Any]"
    ) -> cards_pb2.GetCardStatusResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        operation = CardOperation(
            capability=self._read_status,
            kind=OperationKind.GET_CARD_STATUS,
            **self._named_card(request.card, caller),
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), cards_pb2.GetCardStatusResponse)

    async def ReportLoss(
        self, request: cards_pb2.ReportLossRequest, context: "Context[Any, Any]"
    ) -> cards_pb2.ReportLossResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        loss_kind = fields.member("kind", LossKind, request.kind)
        operation = LossOperation(
            capability=self._report_loss,
            kind=OperationKind.REPORT_LOSS,
            urgent=True,
            loss_kind=loss_kind,
            **self._named_card(request.card, caller),
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), cards_pb2.ReportLossResponse)

    async def LiftLoss(
        self, request: cards_pb2.LiftLossRequest, context: "Context[Any, Any]"
    ) -> cards_pb2.LiftLossResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        operation = CardOperation(
            capability=self._lift_loss,
            kind=OperationKind.LIFT_LOSS,
            **self._named_card(request.card, caller),
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), cards_pb2.LiftLossResponse)

    def _named_card(self, reference: Any, caller: Participant) -> dict[str, Any]:
        """The fields of an operation on the card that a reference names."""
        kind, value = fields.card_reference(reference, today=self._today())
        return {"caller": caller, "card_index": self._blind_index.of(value, kind=kind)}

    def _new_card(self, request: cards_pb2.IssueCardRequest) -> NewCard:
        region = fields.parsed("issuing_region", identifiers.parse_region, request.issuing_region)
        code = fields.parsed(
            "identification_code", identifiers.parse_identification_code, request.identification_code
        )
        if not code.startswith(region):
            raise MalformedFieldError("identification_code", "must begin with the issuing region")
        try:
            self._identification_codes.verify(code)
        except IdentificationCodeInvalidError:
            raise MalformedFieldError("identification_code", "its check value is wrong") from None
        pan = fields.parsed("pan", identifiers.parse_pan, request.pan)
        if not pan.startswith(BIN_PREFIX):
            raise MalformedFieldError("pan", f"must begin with {BIN_PREFIX}")
        expires_on = fields.calendar_date("expires_on", request.expires_on)
        if is_expired(expires_on, self._today()):
            raise MalformedFieldError("expires_on", "must not lie in the past")
        cipher = fields.member("cipher", CardCipher, request.cipher)
        ac_key_version, ss_key_version = active_key_versions(self._key_store, cipher)
        return NewCard(
            name=fields.parsed("name", identifiers.normalise_name, request.name),
            identity_number=fields.parsed(
                "identity_number",
                identifiers.parse_identity_number,
                request.identity_number,
                today=self._today(),
            ),
            issuing_region=region,
            card_number=fields.parsed("card_number", identifiers.parse_card_number, request.card_number),
            identification_code=code,
            atr_historical_bytes=fields.exactly(
                "atr_historical_bytes", request.atr_historical_bytes, size=ATR_HISTORICAL_BYTES_SIZE
            ),
            pan=pan,
            psn=fields.digits("psn", request.psn, size=2, default="00"),
            expires_on=expires_on,
            cipher=cipher,
            ac_key_version=ac_key_version,
            ss_key_version=ss_key_version,
            card_alias=new_card_alias(),
            transaction_amount_max_minor=fields.amount_minor(
                "transaction_amount_max_minor", request.transaction_amount_max_minor
            ),
            day_amount_max_minor=fields.amount_minor("day_amount_max_minor", request.day_amount_max_minor),
        )
