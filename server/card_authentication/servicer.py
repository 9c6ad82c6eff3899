"""CardAuthenticationService on the wire: check, convert, call."""

import time
from typing import Any

import grpc
from onecard.v1 import card_authentication_pb2 as pb
from onecard.v1 import card_authentication_pb2_grpc

from crypto.challenge import Challenges
from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck
from crypto.sealing import BlindIndex
from server.card_authentication.service import (
    AnswerOperation,
    CryptogramOperation,
    JudgeAnswers,
    JudgeCryptograms,
)
from server.cards.directory import CardDirectory, CardFacts, CredentialKind
from server.cards.identifiers import parse_pan
from server.cards.presented import CheckedCryptogram, open_answer
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import checked_chip_answer, presented_cryptogram
from server.edge.intake import Intake, outcome_of
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.errors import MalformedFieldError

Context = grpc.aio.ServicerContext


class CardAuthenticationServicer(card_authentication_pb2_grpc.CardAuthenticationServiceServicer):
    """Makes challenges and judges what chips answer."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        directory: CardDirectory,
        intake: Intake,
        key_store: KeyStore,
        blind_index: BlindIndex,
        challenges: Challenges,
        challenge_life_s: int,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._intake = intake
        self._blind_index = blind_index
        self._challenges = challenges
        self._challenge_life_s = challenge_life_s
        self._judge_answers = JudgeAnswers(key_store, challenge_life_s=challenge_life_s)
        self._judge_cryptograms = JudgeCryptograms(key_store)

    async def CreateChallenge(
        self, request: pb.CreateChallengeRequest, context: "Context[Any, Any]"
    ) -> pb.CreateChallengeResponse:
        issued = self._challenges.issue(
            participant=current_caller.get().participant_id, issued_at_s=int(time.time())
        )
        challenge = issued.challenge
        return pb.CreateChallengeResponse(
            process_factor=challenge.process_factor,
            original_data=challenge.original_data,
            challenge_token=issued.token,
            expires_at_unix_ms=(challenge.issued_at_s + self._challenge_life_s) * 1000,
        )

    async def AuthenticateCard(
        self, request: pb.AuthenticateCardRequest, context: "Context[Any, Any]"
    ) -> pb.AuthenticateCardResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller, terminal_id=request.terminal_id)
        which = request.WhichOneof("credential")
        if which == "answer":
            operation = await self._answer(request, caller, envelope)
        elif which == "cryptogram":
            operation = await self._cryptogram(request, caller, envelope)
        else:
            raise MalformedFieldError("credential", "must be an answer or a cryptogram")
        return await outcome_of(self._engine.submit([operation]), pb.AuthenticateCardResponse)

    async def _answer(
        self, request: pb.AuthenticateCardRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        code, token, response = checked_chip_answer("answer", request.answer)
        facts = await self._find(caller, kind=CredentialKind.IDENTIFICATION_CODE, value=code)
        answer = open_answer(
            self._challenges, facts, token=token, response=response, participant_id=caller.participant_id
        )
        return AnswerOperation(
            capability=self._judge_answers,
            kind=OperationKind.AUTHENTICATE_CARD,
            card_id=facts.card_id if facts else None,
            shard=facts.shard if facts else 0,
            answer=answer,
            **envelope,
        )

    async def _cryptogram(
        self, request: pb.AuthenticateCardRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        card = request.cryptogram
        pan = fields.parsed("cryptogram.pan", parse_pan, card.pan)
        amount_minor = fields.amount_minor("cryptogram.amount_minor", card.amount_minor, minimum=0)
        presented = presented_cryptogram("cryptogram.chip", card.chip, amount_minor=amount_minor)
        facts = await self._find(caller, kind=CredentialKind.PAN, value=pan)
        cryptogram = None
        if facts is not None:
            cryptogram = CheckedCryptogram(
                ArqcCheck(
                    key=facts.ac_key,
                    pan=pan,
                    psn=presented.psn,
                    data=presented.data,
                    atc=presented.atc,
                    arqc=presented.arqc,
                )
            )
        return CryptogramOperation(
            capability=self._judge_cryptograms,
            kind=OperationKind.AUTHENTICATE_CARD,
            card_id=facts.card_id if facts else None,
            shard=facts.shard if facts else 0,
            facts=facts,
            cryptogram=cryptogram,
            **envelope,
        )

    async def _find(self, caller: Participant, *, kind: CredentialKind, value: str) -> CardFacts | None:
        facts = await self._directory.find(self._blind_index.of(value, kind=kind))
        if facts is not None:
            caller.require_region(facts.issuing_region)
        return facts
