"""CryptographyService on the wire: check, convert, call; one by one and in frames.

A unary call is a frame of one: both go through ``_answers``, so that they cannot come to differ.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date
from typing import Any

import grpc
from onecard.v1 import cryptography_pb2 as pb
from onecard.v1 import cryptography_pb2_grpc

from crypto.key_store.data_plane import DataPlane
from crypto.sealing import BlindIndex, ColumnSealer
from server import telemetry
from server.cards.directory import CredentialKind
from server.cards.identifiers import parse_pan
from server.cryptography.conversion import Converter, converted
from server.cryptography.service import CardPins, PinOperation
from server.cryptography.stateless import WORKS, Stateless, outcome_name
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.frame_stream import answer_frames
from server.edge.intake import Intake
from server.edge.status import to_operation_error
from server.engine.group_commit import GroupCommit
from server.engine.operation import OperationKind
from server.errors import MalformedFieldError, OneCardError
from server.key_calls import KeyCalls

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext
FRAME_OPERATIONS_MAX = 256
# More would hold the event loop for too long: a MAC costs by the byte.
FRAME_MESSAGE_BYTES_MAX = 256 << 10
STREAM_CLASS = "cryptography_stream"
PIN_KINDS: dict[str, OperationKind] = {
    "verify_pin": OperationKind.VERIFY_PIN,
    "change_pin": OperationKind.CHANGE_PIN,
    "unblock_pin": OperationKind.UNBLOCK_PIN,
    "issue_pin": OperationKind.ISSUE_PIN,
}


class CryptographyServicer(cryptography_pb2_grpc.CryptographyServiceServicer):
    """Card cryptography for bank cores."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        sealer: ColumnSealer,
        renew: Callable[[Participant], Participant],
        today: Callable[[], date],
    ) -> None:
        """``renew`` gives a caller's present grants; see ``ParticipantRegistry.renew``."""
        plane = DataPlane(keys.store)
        self._engine = engine
        self._intake = intake
        self._key_store = keys.store
        self._blind_index = blind_index
        self._renew = renew
        self._today = today
        self._stateless = Stateless(keys, plane)
        self._card_pins = CardPins(keys, plane, sealer)

    async def VerifyArqc(
        self, request: pb.VerifyArqcRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyArqcResponse:
        return await self._one("verify_arqc", request, context)  # type: ignore[no-any-return]

    async def VerifyPin(
        self, request: pb.VerifyPinRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyPinResponse:
        return await self._one("verify_pin", request, context)  # type: ignore[no-any-return]

    async def ChangePin(
        self, request: pb.ChangePinRequest, context: "Context[Any, Any]"
    ) -> pb.ChangePinResponse:
        return await self._one("change_pin", request, context)  # type: ignore[no-any-return]

    async def UnblockPin(
        self, request: pb.UnblockPinRequest, context: "Context[Any, Any]"
    ) -> pb.UnblockPinResponse:
        return await self._one("unblock_pin", request, context)  # type: ignore[no-any-return]

    async def IssuePin(
        self, request: pb.IssuePinRequest, context: "Context[Any, Any]"
    ) -> pb.IssuePinResponse:
        return await self._one("issue_pin", request, context)  # type: ignore[no-any-return]

    async def TranslatePin(
        self, request: pb.TranslatePinRequest, context: "Context[Any, Any]"
    ) -> pb.TranslatePinResponse:
        return await self._one("translate_pin", request, context)  # type: ignore[no-any-return]

    async def GenerateMac(
        self, request: pb.GenerateMacRequest, context: "Context[Any, Any]"
    ) -> pb.GenerateMacResponse:
        return await self._one("generate_mac", request, context)  # type: ignore[no-any-return]

    async def VerifyMac(
        self, request: pb.VerifyMacRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyMacResponse:
        return await self._one("verify_mac", request, context)  # type: ignore[no-any-return]

    async def GenerateCardVerification(
        self, request: pb.GenerateCardVerificationRequest, context: "Context[Any, Any]"
    ) -> pb.GenerateCardVerificationResponse:
        return await self._one("generate_card_verification", request, context)  # type: ignore[no-any-return]

    async def VerifyCardVerification(
        self, request: pb.VerifyCardVerificationRequest, context: "Context[Any, Any]"
    ) -> pb.VerifyCardVerificationResponse:
        return await self._one("verify_card_verification", request, context)  # type: ignore[no-any-return]

    async def GenerateIssuerScript(
        self, request: pb.GenerateIssuerScriptRequest, context: "Context[Any, Any]"
    ) -> pb.GenerateIssuerScriptResponse:
        return await self._one("generate_issuer_script", request, context)  # type: ignore[no-any-return]

    async def CryptographyStream(
        self, request_iterator: AsyncIterator[pb.CryptographyStreamRequest], context: "Context[Any, Any]"
    ) -> AsyncIterator[pb.CryptographyStreamResponse]:
        async def answer(
            frame: pb.CryptographyStreamRequest, current: Participant
        ) -> pb.CryptographyStreamResponse:
            return await self._frame(frame, current, context)

        async for response in answer_frames(
            request_iterator,
            answer,
            caller=current_caller.get(),
            rpc_class=STREAM_CLASS,
            renew=self._renew,
        ):
            yield response

    async def _one(self, operation: str, request: Any, context: "Context[Any, Any]") -> Any:
        (answer,) = await self._answers([(operation, request)], current_caller.get(), context)
        if isinstance(answer, OneCardError):
            raise answer
        return answer

    async def _frame(
        self, frame: pb.CryptographyStreamRequest, caller: Participant, context: "Context[Any, Any]"
    ) -> pb.CryptographyStreamResponse:
        if not 1 <= len(frame.operations) <= FRAME_OPERATIONS_MAX:
            raise MalformedFieldError("operations", f"must be 1 to {FRAME_OPERATIONS_MAX}")
        message_bytes = sum(
            len(entry.generate_mac.message) + len(entry.verify_mac.message) for entry in frame.operations
        )
        if message_bytes > FRAME_MESSAGE_BYTES_MAX:
            raise MalformedFieldError(
                "operations", f"messages must be {FRAME_MESSAGE_BYTES_MAX} bytes together at most"
            )
        asked: list[tuple[str, Any]] = []
        for entry in frame.operations:
            operation: str = entry.WhichOneof("operation") or ""
            asked.append((operation, getattr(entry, operation, None)))
        response = pb.CryptographyStreamResponse(frame_id=frame.frame_id)
        answers = await self._answers(asked, caller, context)
        for (operation, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, OneCardError):
                telemetry.refusal_counter(answer.reason).inc()
                response.results.add(error=to_operation_error(answer))
            else:
                getattr(response.results.add(), operation).CopyFrom(answer)
        _note_frame(caller, asked, answers)
        return response

    async def _answers(
        self, asked: Sequence[tuple[str, Any]], caller: Participant, context: "Context[Any, Any]"
    ) -> list[Any]:
        """In order, response messages or operating errors; each operation under its own grant."""
        answers: list[Any] = [None] * len(asked)
        stateless: list[tuple[int, str, Any]] = []
        pins: list[tuple[int, PinOperation]] = []
        converter = Converter(self._key_store, caller)
        for position, (operation, request) in enumerate(asked):
            try:
                if operation in PIN_KINDS:
                    caller.require_rpc_class(operation)
                    pins.append((position, self._pin(operation, request, converter, caller, context)))
                elif operation in WORKS:
                    caller.require_rpc_class(operation)
                    stateless.append((position, operation, converted(converter, operation, request)))
                else:
                    raise MalformedFieldError("operation", "must be one of the named operations")
            except OneCardError as error:
                answers[position] = error
        if stateless:
            done = await self._stateless.run([(operation, request) for _, operation, request in stateless])
            for (position, _, _), answer in zip(stateless, done, strict=True):
                answers[position] = answer
        if pins:
            try:
                decided = await self._engine.submit([operation for _, operation in pins])
            except OneCardError as error:
                decided = [error] * len(pins)
            for (position, _), answer in zip(pins, decided, strict=True):
                answers[position] = answer
        return answers

    def _pin(
        self,
        operation: str,
        request: Any,
        converter: Converter,
        caller: Participant,
        context: "Context[Any, Any]",
    ) -> PinOperation:
        terminal_id = getattr(request, "terminal_id", "")
        envelope = self._intake.envelope(request, context, caller, terminal_id=terminal_id)
        if operation == "unblock_pin":
            kind, value = fields.card_reference(request.card, today=self._today())
        else:
            kind, value = CredentialKind.PAN, fields.parsed("pan", parse_pan, request.pan)
        pins: dict[str, Any] = {}
        if operation == "verify_pin":
            pins["presented"] = converter.bound_pin("pin", request.pin, pan=value)
        elif operation == "change_pin":
            pins["presented"] = converter.bound_pin("current_pin", request.current_pin, pan=value)
            pins["new"] = converter.bound_pin("new_pin", request.new_pin, pan=value)
        elif operation == "issue_pin":
            pins["issue"] = converter.pin_issue(request, pan=value)
        return PinOperation(
            capability=self._card_pins,
            kind=PIN_KINDS[operation],
            card_index=self._blind_index.of(value, kind=kind),
            caller=caller,
            **pins,
            **envelope,
        )


def _note_frame(caller: Participant, asked: Sequence[tuple[str, Any]], answers: Sequence[Any]) -> None:
    """One line for each frame: who had what done how often, and how it ended. Unary calls have the gate's line."""
    if not log.isEnabledFor(logging.INFO):
        return
    counts = Counter(
        f"{operation or 'none'}:{outcome_name(answer)}"
        for (operation, _), answer in zip(asked, answers, strict=True)
    )
    log.info("cryptography frame", extra={"caller": caller.participant_id, "operations": dict(counts)})
