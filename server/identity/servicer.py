"""IdentityService on the wire: check, convert, call."""

import hmac
from collections.abc import Callable
from datetime import date
from typing import Any

import grpc
from onecard.v1 import identity_pb2 as pb
from onecard.v1 import identity_pb2_grpc

from crypto.card_code import CARD_CODE_CHARACTERS_MAX, CardCodes, CardCodeUse
from crypto.challenge import Challenges
from crypto.errors import CardCodeInvalidError
from crypto.key_store import KeyStore
from crypto.sealing import BlindIndex
from crypto.token_text import token_digest
from server.cards.directory import NAME_KIND, CardDirectory, CardFacts, CredentialKind
from server.cards.identifiers import normalise_name, parse_identity_number
from server.cards.presented import open_answer
from server.cards.service import find_card
from server.cards.servicer import card_fields
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import checked_chip_answer
from server.edge.intake import Intake, outcome_of
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.errors import MalformedFieldError
from server.identity.service import (
    ChipOperation,
    CodeOperation,
    IssueCodeOperation,
    IssueCodes,
    NameOperation,
    VerifyByChip,
    VerifyByCode,
    VerifyByName,
)

Context = grpc.aio.ServicerContext
NO_NAME = bytes(16)


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Verifies holders and issues the codes of the electronic card."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        directory: CardDirectory,
        intake: Intake,
        key_store: KeyStore,
        blind_index: BlindIndex,
        challenges: Challenges,
        card_codes: CardCodes,
        today: Callable[[], date],
        challenge_life_s: int,
        card_code_life_s: int,
        card_code_skew_s: int,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._intake = intake
        self._blind_index = blind_index
        self._challenges = challenges
        self._card_codes = card_codes
        self._today = today
        self._by_chip = VerifyByChip(key_store, challenge_life_s=challenge_life_s)
        self._by_code = VerifyByCode(life_s=card_code_life_s, skew_s=card_code_skew_s)
        self._by_name = VerifyByName()
        self._issue = IssueCodes(card_codes, life_s=card_code_life_s)

    async def VerifyIdentity(
        self, request: pb.VerifyIdentityRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyIdentityResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller, terminal_id=request.terminal_id)
        which = request.WhichOneof("credential")
        if which == "chip":
            operation = await self._chip(request, caller, envelope)
        elif which == "card_code":
            operation = await self._code(request, caller, envelope)
        elif which == "name_and_number":
            operation = await self._name(request, caller, envelope)
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
        facts = await find_card(self._directory, self._blind_index, caller, kind=kind, value=value)
        operation = IssueCodeOperation(
            capability=self._issue,
            kind=OperationKind.ISSUE_CARD_CODE,
            use=use,
            **card_fields(facts),
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), pb.IssueCardCodeResponse)

    async def _chip(
        self, request: pb.VerifyIdentityRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        code, token, response = checked_chip_answer("chip", request.chip)
        facts = await self._find(kind=CredentialKind.IDENTIFICATION_CODE, value=code)
        _require_region(caller, facts)
        answer = open_answer(
            self._challenges, facts, token=token, response=response, participant_id=caller.participant_id
        )
        return ChipOperation(capability=self._by_chip, answer=answer, **_verification(facts), **envelope)

    async def _code(
        self, request: pb.VerifyIdentityRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        text = fields.visible(
            "card_code", request.card_code, length_min=1, length_max=CARD_CODE_CHARACTERS_MAX
        )
        try:
            code = self._card_codes.open(text)
        except CardCodeInvalidError:
            code = None
        facts = None
        if code is not None:
            facts = await self._find(kind=CredentialKind.ALIAS, value=code.card_alias.hex())
        _require_region(caller, facts)
        return CodeOperation(
            capability=self._by_code,
            code=code,
            facts=facts,
            token_digest=token_digest(text),
            **_verification(facts),
            **envelope,
        )

    async def _name(
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
        name_index = self._blind_index.of(name, kind=NAME_KIND)
        facts = await self._find(kind=CredentialKind.IDENTITY_NUMBER, value=number)
        # A card of a region that is not the caller's answers like one that does not exist: a refusal would tell
        # that the person has one.
        if facts is not None and not caller.may_region(facts.issuing_region):
            facts = None
        agrees = hmac.compare_digest(facts.name_index if facts is not None else NO_NAME, name_index)
        return NameOperation(
            capability=self._by_name, facts=facts, agrees=agrees, **_verification(facts), **envelope
        )

    async def _find(self, *, kind: CredentialKind, value: str) -> CardFacts | None:
        return await self._directory.find(self._blind_index.of(value, kind=kind))


def _require_region(caller: Participant, facts: CardFacts | None) -> None:
    if facts is not None:
        caller.require_region(facts.issuing_region)


def _verification(facts: CardFacts | None) -> dict[str, Any]:
    return {
        "kind": OperationKind.VERIFY_IDENTITY,
        "card_id": facts.card_id if facts else None,
        "shard": facts.shard if facts else 0,
    }
