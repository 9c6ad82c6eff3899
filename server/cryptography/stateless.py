"""Operations that keep nothing: one call of the data plane for all of a kind, and the answers of the wire.

A verification that fails is an answer; a key that may not do something is an operating error of its operation alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from onecard.v1 import cryptography_pb2 as pb

from crypto.errors import PinBlockInvalidError, VerificationError
from crypto.key_store.data_plane import DataPlane
from server import telemetry
from server.cryptography.conversion import ArqcRequest
from server.edge.key_errors import RefusedFields, operating_error
from server.errors import OneCardError, UnavailableError
from server.key_calls import KeyCalls

# Operations in one key-store call: as many as a token does in a few tens of milliseconds.
SLICE = 64


class Work(NamedTuple):
    """How one kind of operation is done, and what of a request its refusals are about."""

    do: Callable[[DataPlane, Sequence[Any]], Sequence[Any]]
    response: Callable[[Any], Any]
    fields: RefusedFields


def _verify_arqcs(plane: DataPlane, requests: Sequence[ArqcRequest]) -> list[Any]:
    """The answer to each card, empty where none was asked for; None for a cryptogram that is not proven."""
    results: list[Any] = []
    verified_arqcs = plane.verify_arqcs([request.check for request in requests])
    for request, verified in zip(requests, verified_arqcs, strict=True):
        if verified is None or isinstance(verified, Exception):
            results.append(verified)
        elif request.csu:
            results.append(verified.arpc_method_2(csu=request.csu, proprietary=request.proprietary))
        else:
            results.append(verified.arpc(request.arc) if request.arc else b"")
    return results


def _verified(response: type[Any]) -> Callable[[Any], Any]:
    return lambda failure: response(verified=failure is None)


WORKS: dict[str, Work] = {
    "verify_arqc": Work(
        _verify_arqcs,
        lambda arpc: pb.VerifyArqcResponse(verified=arpc is not None, arpc=arpc or b""),
        RefusedFields("key"),
    ),
    "translate_pin": Work(
        DataPlane.translate_pins,
        lambda block: pb.TranslatePinResponse(pin_block=block),
        RefusedFields("source.key", "source", "pan"),
    ),
    "generate_mac": Work(
        DataPlane.generate_macs,
        lambda mac: pb.GenerateMacResponse(mac=mac),
        RefusedFields("key", value="mac_bytes"),
    ),
    "verify_mac": Work(
        DataPlane.verify_macs, _verified(pb.VerifyMacResponse), RefusedFields("key", value="mac")
    ),
    "generate_card_verification": Work(
        DataPlane.generate_card_verifications,
        lambda value: pb.GenerateCardVerificationResponse(card_verification_value=value),
        RefusedFields("key", value="service_code"),
    ),
    "verify_card_verification": Work(
        DataPlane.verify_card_verifications,
        _verified(pb.VerifyCardVerificationResponse),
        RefusedFields("key", value="service_code"),
    ),
    "generate_issuer_script": Work(
        DataPlane.generate_issuer_scripts,
        lambda command: pb.GenerateIssuerScriptResponse(command=command),
        RefusedFields("", "new_pin"),
    ),
}


class Stateless:
    """Does what needs the key store and nothing else."""

    def __init__(self, keys: KeyCalls, plane: DataPlane) -> None:
        self._keys = keys
        self._plane = plane

    async def run(self, asked: Sequence[tuple[str, Any]]) -> list[Any]:
        """Does converted requests, each with the name of its operation.

        Returns:
            In order, response messages or operating errors.
        """
        positions: dict[str, list[int]] = {}
        for position, (operation, _) in enumerate(asked):
            positions.setdefault(operation, []).append(position)
        answers: list[Any] = [None] * len(asked)
        for operation, places in positions.items():
            # A frame of one kind is asked in slices: a card's operation that waits for the key store goes between.
            for start in range(0, len(places), SLICE):
                some = places[start : start + SLICE]
                done = await self._do(WORKS[operation], [asked[position][1] for position in some])
                for position, result in zip(some, done, strict=True):
                    answers[position] = _answer(operation, result)
        return answers

    async def _do(self, work: Work, requests: Sequence[Any]) -> Sequence[Any]:
        try:
            return await self._keys.ask(lambda: work.do(self._plane, requests))
        except UnavailableError as error:
            return [error] * len(requests)


def outcome_name(answer: Any) -> str:
    """How an operation ended, for counters and log lines."""
    if isinstance(answer, OneCardError):
        return answer.reason.lower()
    return "done" if getattr(answer, "verified", True) else "not_verified"


def _answer(operation: str, result: Any) -> Any:
    """The response message, or the operating error."""
    work = WORKS[operation]
    if isinstance(result, OneCardError):
        answer = result
    elif _is_refusal(result):
        answer = operating_error(result, work.fields)
    else:
        answer = work.response(result)
    telemetry.cryptography_counter(operation, outcome_name(answer)).inc()
    return answer


def _is_refusal(result: Any) -> bool:
    """Whether there is no answer: what only does not verify has one."""
    is_unverified = isinstance(result, VerificationError) and not isinstance(result, PinBlockInvalidError)
    return isinstance(result, Exception) and not is_unverified
