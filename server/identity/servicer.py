"""IdentityService on the wire: check, convert, call."""

from collections.abc import Callable
from datetime import date
from typing import Any

import grpc
from onecard.v1 import identity_pb2 as pb
from onecard.v1 import identity_pb2_grpc

from crypto.card_code import CARD_CODE_CHARACTERS_MAX, CardCodes, CardCodeUse
from crypto.challenge import Challenges
from crypto.errors import CardCodeInvalidError
from crypto.sealing import BlindIndex
from crypto.token_text import token_digest
from server.cards.chip_answers import AnswerOperation, opened_challenge
from server.cards.directory import NAME_KIND, CredentialKind
from server.cards.identifiers import normalise_name, parse_identity_number
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import checked_chip_answer
from server.edge.intake import Intake, outcome_of
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.errors import MalformedFieldError
from server.identity.service import (
    CodeOperation,
    IssueCodeOperation,
    IssueCodes,
    NameOperation,
    VerifyByChip,
    VerifyByCode,
    VerifyByName,
)
from server.key_calls import KeyCalls

Context = grpc.aio.ServicerContext


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Verifies holders and issues the codes of the electronic card."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        challenges: Challenges,
        card_codes: CardCodes,
        today: Callable[[], date],
        challenge_life_s: int,
        card_code_life_s: int,
        card_code_skew_s: int,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._blind_index = blind_index
        self._challenges = challenges
        self._card_codes = card_codes
        self._today = today
        self._by_chip = VerifyByChip(keys, challenge_life_s=challenge_life_s)
        self._by_code = VerifyByCode(token_life_s=card_code_life_s + card_code_skew_s)
        self._by_name = VerifyByName()
        self._issue = IssueCodes(card_codes, life_s=card_code_life_s)

    async def VerifyIdentity(
        self, request: pb.VerifyIdentityRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyIdentityResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller, terminal_id=request.terminal_id)
        which = request.WhichOneof("credential")
        if which == "chip":
            operation = self._chip(request, caller, envelope)
        elif which == "card_code":
            operation = self._code(request, caller, envelope)
        elif which == "name_and_number":
            operation = self._name(request, caller, envelope)
        else:
            raise MalformedFieldError(
                "credential", "must be a chip's answer, a card code, or name and number"
            )
        return await outcome_of(self._engine.submit([operation]), pb.VerifyIdentityResponse)

    async def IssueCardCode(
        self, request: pb.IssueCardCodeRequest, context: "Context[Any, Any]"
    ) -> pb.IssueCardCodeResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        use = fields.member("use", CardCodeUse, request.use)
        kind, value = fields.card_reference(request.card, today=self._today())
        operation = IssueCodeOperation(
            capability=self._issue,
            kind=OperationKind.ISSUE_CARD_CODE,
            card_index=self._blind_index.of(value, kind=kind),
            caller=caller,
            use=use,
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), pb.IssueCardCodeResponse)

    def _chip(
        self, request: pb.VerifyIdentityRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        code, token, response = checked_chip_answer("chip", request.chip)
        return AnswerOperation(
            capability=self._by_chip,
            kind=OperationKind.VERIFY_IDENTITY,
            card_index=self._blind_index.of(code, kind=CredentialKind.IDENTIFICATION_CODE),
            caller=caller,
            response=response,
            **opened_challenge(self._challenges, token, caller),
            **envelope,
        )

    def _code(
        self, request: pb.VerifyIdentityRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        text = fields.visible(
            "card_code", request.card_code, length_min=1, length_max=CARD_CODE_CHARACTERS_MAX
        )
        try:
            code = self._card_codes.open(text)
        except CardCodeInvalidError:
            code = None
        return CodeOperation(
            capability=self._by_code,
            kind=OperationKind.VERIFY_IDENTITY,
            card_index=self._blind_index.of(code.card_alias.hex(), kind=CredentialKind.ALIAS)
            if code
            else None,
            caller=caller,
            code=code,
            token_digest=token_digest(text),
            token_issued_at_s=code.issued_at_s if code is not None else None,
            **envelope,
        )

    def _name(
        self, request: pb.VerifyIdentityRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        stated = request.name_and_number
        name = fields.parsed("name_and_number.name", normalise_name, stated.name)
        number = fields.parsed(
            "name_and_number.identity_number",
            parse_identity_number,
            stated.identity_number,
            today=self._today(),
        )
        return NameOperation(
            capability=self._by_name,
            kind=OperationKind.VERIFY_IDENTITY,
            card_index=self._blind_index.of(number, kind=CredentialKind.IDENTITY_NUMBER),
            caller=caller,
            name_index=self._blind_index.of(name, kind=NAME_KIND),
            **envelope,
        )
