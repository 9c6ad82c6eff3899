"""CardAuthenticationService on the wire: check, convert, call."""

import time
from typing import Any

import grpc
from onecard.v1 import card_authentication_pb2 as pb
from onecard.v1 import card_authentication_pb2_grpc

from crypto.challenge import Challenges
from crypto.sealing import BlindIndex
from server.card_authentication.service import JudgeAnswers, JudgeCryptograms
from server.cards.chip_answers import AnswerOperation, opened_challenge
from server.cards.directory import CredentialKind
from server.cards.identifiers import parse_pan
from server.cards.presented import CryptogramOperation
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import checked_chip_answer, presented_cryptogram
from server.edge.intake import Intake, outcome_of
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.errors import MalformedFieldError
from server.key_calls import KeyCalls

Context = grpc.aio.ServicerContext


class CardAuthenticationServicer(card_authentication_pb2_grpc.CardAuthenticationServiceServicer):
    """Makes challenges and judges what chips answer."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        challenges: Challenges,
        challenge_life_s: int,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._blind_index = blind_index
        self._challenges = challenges
        self._challenge_life_s = challenge_life_s
        self._judge_answers = JudgeAnswers(keys, challenge_life_s=challenge_life_s)
        self._judge_cryptograms = JudgeCryptograms(keys)

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
            operation = self._answer(request, caller, envelope)
        elif which == "cryptogram":
            operation = self._cryptogram(request, caller, envelope)
        else:
            raise MalformedFieldError("credential", "must be an answer or a cryptogram")
        return await outcome_of(self._engine.submit([operation]), pb.AuthenticateCardResponse)

    def _answer(
        self, request: pb.AuthenticateCardRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        code, token, response = checked_chip_answer("answer", request.answer)
        return AnswerOperation(
            capability=self._judge_answers,
            kind=OperationKind.AUTHENTICATE_CARD,
            card_index=self._blind_index.of(code, kind=CredentialKind.IDENTIFICATION_CODE),
            caller=caller,
            response=response,
            **opened_challenge(self._challenges, token, caller),
            **envelope,
        )

    def _cryptogram(
        self, request: pb.AuthenticateCardRequest, caller: Participant, envelope: dict[str, Any]
    ) -> Operation:
        card = request.cryptogram
        pan = fields.parsed("cryptogram.pan", parse_pan, card.pan)
        amount_minor = fields.amount_minor("cryptogram.amount_minor", card.amount_minor, minimum=0)
        return CryptogramOperation(
            capability=self._judge_cryptograms,
            kind=OperationKind.AUTHENTICATE_CARD,
            card_index=self._blind_index.of(pan, kind=CredentialKind.PAN),
            caller=caller,
            presented=presented_cryptogram("cryptogram.chip", card.chip, pan=pan, amount_minor=amount_minor),
            **envelope,
        )
