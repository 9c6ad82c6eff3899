"""What every request with a purpose goes through before its own fields are read."""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from crypto.sealing import RequestDigest
from server.catalogue.service import Catalogue
from server.edge import fields
from server.edge.caller import Participant
from server.errors import OneCardError

R = TypeVar("R", bound=Message)


class PurposefulRequest(fields.HasPurpose, Protocol):
    """A request bound to a catalogue item."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


class Intake:
    """Checks purpose, grant and deadline, and gathers what an operation of any capability carries."""

    def __init__(self, *, catalogue: Catalogue, digest: RequestDigest, deadline_default_ms: int) -> None:
        self._catalogue = catalogue
        self._digest = digest
        self._deadline_default_ms = deadline_default_ms

    def envelope(
        self,
        request: PurposefulRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
        caller: Participant,
        *,
        terminal_id: str = "",
    ) -> dict[str, Any]:
        """The fields that every ``Operation`` with a purpose has in common; reads have no ``request_id``.

        Raises:
            MalformedFieldError: request id, item or terminal is malformed.
            NotGrantedError: the item is not granted to the caller.
            NotFoundError: no such item or version.
            StateConflictError: the item is not in force.
            DeadlineError: the deadline has passed.
        """
        request_id = getattr(request, "request_id", None)
        catalogue_item, version = fields.purpose(request)
        envelope = {
            "participant_id": caller.participant_id,
            "request_id": None if request_id is None else fields.request_id(request_id),
            "request_digest": self.digest(request),
            "deadline": self.deadline(context),
            "catalogue_item": catalogue_item,
            "catalogue_item_version": version,
            "terminal_id": fields.visible("terminal_id", terminal_id, length_max=16),
        }
        caller.require_catalogue_item(catalogue_item)
        self._catalogue.require(catalogue_item, version)
        return envelope

    def digest(self, request: Any) -> bytes:
        """Keyed digest of the request's content, 16 bytes; the letter case of its request id is no content."""
        request_id = getattr(request, "request_id", "")
        if request_id != (canonical := request_id.lower()):
            spelled = request
            request = type(spelled)()
            request.CopyFrom(spelled)
            request.request_id = canonical
        # One order of bytes for one content without being asked for it, which costs as much again: only maps have none.
        return self._digest.of(request.SerializeToString())

    def deadline(self, context: "grpc.aio.ServicerContext[Any, Any]") -> float:
        """The call's deadline in seconds of the loop's clock.

        Raises:
            DeadlineError: it has passed.
        """
        return fields.deadline(context, default_ms=self._deadline_default_ms)


async def outcome_of(submitted: "Awaitable[list[Any]]", response_type: type[R]) -> R:
    """The one result of a submitted operation.

    Raises:
        OneCardError: the operation has no outcome.
    """
    (result,) = await submitted
    if isinstance(result, OneCardError):
        raise result
    assert isinstance(result, response_type), f"expected {response_type.__name__}"
    return result
