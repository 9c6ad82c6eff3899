"""A bank's core system: issues cards and PINs, takes deposits, forwards purchases, stops lost cards."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cards_pb2, common_pb2, cryptography_pb2, identity_pb2

from clients.channel import new_request_id
from clients.errors import OneCardCallError, from_operation_error
from clients.frames import FRAMES_IN_FLIGHT_MAX
from clients.money_requests import MoneyRequests
from clients.purpose import CARD_APPLICATION, CARD_CODE, CARD_LOSS, CARD_PIN, CARD_STATUS, CARD_TOKEN
from clients.service_client import OneCardClient

# The outcome of one operation of a frame; an error may be sent again under the same request id if it is retryable.
FrameOutcome: TypeAlias = pb.AuthorizeResponse | OneCardCallError


@dataclass(frozen=True, kw_only=True)
class CardApplication:
    """A holder and the card produced for them; see ``onecard.v1.IssueCardRequest`` for the bounds."""

    name: str
    identity_number: str
    issuing_region: str
    card_number: str
    identification_code: str
    atr_historical_bytes: bytes
    pan: str
    psn: str
    expires_on: str
    cipher: "common_pb2.CardCipher.ValueType"
    transaction_amount_max_minor: int
    day_amount_max_minor: int

    def __repr__(self) -> str:
        return f"CardApplication(****{self.pan[-4:]}, {self.issuing_region})"


class Bank:
    """One bank; ``requests`` builds what its own counter sends.

    Args:
        client: of the bank.
        counter_id: terminal under which its own deposits run; its trace numbers begin anew with each ``Bank``, so
            a bank that starts again on one business date takes another counter.
    """

    def __init__(self, client: OneCardClient, *, counter_id: str = "COUNTER") -> None:
        self._client = client
        self.requests = MoneyRequests(terminal_id=counter_id)

    async def issue_card(
        self, application: CardApplication, *, request_id: str | None = None
    ) -> cards_pb2.IssueCardResponse:
        """Issues the chip card and the electronic card.

        Raises:
            AlreadyExistsError: ``CARD_ALREADY_ISSUED``; ``field`` names the identifier that is taken.
            OneCardCallError: no answer.
        """
        return await self._client.issue_card(
            cards_pb2.IssueCardRequest(
                request_id=request_id or new_request_id(),
                catalogue_item=CARD_APPLICATION.catalogue_item,
                catalogue_item_version=CARD_APPLICATION.catalogue_item_version,
                name=application.name,
                identity_number=application.identity_number,
                issuing_region=application.issuing_region,
                card_number=application.card_number,
                identification_code=application.identification_code,
                atr_historical_bytes=application.atr_historical_bytes,
                pan=application.pan,
                psn=application.psn,
                expires_on=application.expires_on,
                cipher=application.cipher,
                transaction_amount_max_minor=application.transaction_amount_max_minor,
                day_amount_max_minor=application.day_amount_max_minor,
            )
        )

    def prepare_deposit(self, pan: str, *, amount_minor: int) -> pb.AuthorizeRequest:
        """Builds a deposit; nothing is sent."""
        return self.requests.without_chip(pb.OPERATION_TYPE_DEPOSIT, pan, amount_minor=amount_minor)

    async def authorize(self, request: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        """Sends what a terminal prepared, or a deposit; again under the same id gives the same outcome.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.authorize(request)

    async def deposit(self, pan: str, *, amount_minor: int) -> pb.AuthorizeResponse:
        """Pays money onto a card.

        Raises:
            OneCardCallError: no answer.
        """
        return await self.authorize(self.prepare_deposit(pan, amount_minor=amount_minor))

    async def authorize_frames(
        self,
        frames: AsyncIterable[Sequence[pb.AuthorizeRequest]],
        *,
        in_flight_max: int = FRAMES_IN_FLIGHT_MAX,
    ) -> AsyncIterator[list[FrameOutcome]]:
        """Streams frames of up to 512 operations; yields each frame's outcomes in the order of its operations.

        Raises:
            OneCardCallError: the stream is refused, or its retries are used up.
        """

        async def numbered() -> AsyncIterator[pb.AuthorizeStreamRequest]:
            frame_id = 0
            async for operations in frames:
                frame_id += 1
                yield pb.AuthorizeStreamRequest(frame_id=frame_id, operations=operations)

        async for answer in self._client.authorize_stream(numbered(), in_flight_max=in_flight_max):
            yield [
                from_operation_error(result.error) if result.HasField("error") else result.response
                for result in answer.results
            ]

    async def card_status(self, card: common_pb2.CardReference) -> cards_pb2.GetCardStatusResponse:
        """Tells a card's status.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.get_card_status(
            cards_pb2.GetCardStatusRequest(
                catalogue_item=CARD_STATUS.catalogue_item,
                catalogue_item_version=CARD_STATUS.catalogue_item_version,
                card=card,
            )
        )

    async def report_loss(
        self,
        card: common_pb2.CardReference,
        *,
        kind: "cards_pb2.LossKind.ValueType" = cards_pb2.LOSS_KIND_FORMAL,
    ) -> cards_pb2.ReportLossResponse:
        """Stops a card; in force when this returns.

        Raises:
            StateConflictError: it is stopped already.
            OneCardCallError: no answer.
        """
        return await self._client.report_loss(
            cards_pb2.ReportLossRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_LOSS.catalogue_item,
                catalogue_item_version=CARD_LOSS.catalogue_item_version,
                card=card,
                kind=kind,
            )
        )

    async def lift_loss(self, card: common_pb2.CardReference) -> cards_pb2.LiftLossResponse:
        """Brings a card that was found back into use.

        Raises:
            StateConflictError: it is not reported lost.
            OneCardCallError: no answer.
        """
        return await self._client.lift_loss(
            cards_pb2.LiftLossRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_LOSS.catalogue_item,
                catalogue_item_version=CARD_LOSS.catalogue_item_version,
                card=card,
            )
        )

    async def card_code(
        self, card: common_pb2.CardReference, *, use: "identity_pb2.CardCodeUse.ValueType"
    ) -> identity_pb2.IssueCardCodeResponse:
        """A code for the electronic card in the bank's app.

        Raises:
            StateConflictError: the card is not in use.
            OneCardCallError: no answer.
        """
        return await self._client.issue_card_code(
            identity_pb2.IssueCardCodeRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_CODE.catalogue_item,
                catalogue_item_version=CARD_CODE.catalogue_item_version,
                card=card,
                use=use,
            )
        )

    async def issue_pin(
        self,
        pan: str,
        *,
        mailer_key: str,
        format: "cryptography_pb2.PinBlockFormat.ValueType",  # noqa: A002
    ) -> cryptography_pb2.IssuePinResponse:
        """Gives a card a random PIN, for the printer of PIN mailers who holds ``mailer_key``; a decline is an answer.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.issue_pin(
            cryptography_pb2.IssuePinRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_PIN.catalogue_item,
                catalogue_item_version=CARD_PIN.catalogue_item_version,
                pan=pan,
                key=cryptography_pb2.KeyReference(name=mailer_key),
                format=format,
            )
        )

    async def verify_pin(
        self, pan: str, pin: cryptography_pb2.EncryptedPin
    ) -> cryptography_pb2.VerifyPinResponse:
        """Checks a PIN as a pad encrypted it; a wrong one is an answer and counts.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.verify_pin(
            cryptography_pb2.VerifyPinRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_PIN.catalogue_item,
                catalogue_item_version=CARD_PIN.catalogue_item_version,
                pan=pan,
                pin=pin,
            )
        )

    async def change_pin(
        self,
        pan: str,
        *,
        current_pin: cryptography_pb2.EncryptedPin,
        new_pin: cryptography_pb2.EncryptedPin,
    ) -> cryptography_pb2.ChangePinResponse:
        """Changes a PIN; the present one counts as in ``verify_pin``.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.change_pin(
            cryptography_pb2.ChangePinRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_PIN.catalogue_item,
                catalogue_item_version=CARD_PIN.catalogue_item_version,
                pan=pan,
                current_pin=current_pin,
                new_pin=new_pin,
            )
        )

    async def unblock_pin(self, card: common_pb2.CardReference) -> cryptography_pb2.UnblockPinResponse:
        """Lets a PIN be tried again, after the bank made sure of the holder.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.unblock_pin(
            cryptography_pb2.UnblockPinRequest(
                request_id=new_request_id(),
                catalogue_item=CARD_PIN.catalogue_item,
                catalogue_item_version=CARD_PIN.catalogue_item_version,
                card=card,
            )
        )

    async def register_card_token(self, card: common_pb2.CardReference, *, card_token: str) -> None:
        """Lets ``card_token``, of 8 to 64 characters and the bank's own, name a card that is kept on file.

        Raises:
            AlreadyExistsError: ``CARD_TOKEN_TAKEN``: it was registered before.
            StateConflictError: the card is not in use.
            OneCardCallError: no answer.
        """
        await self._client.register_card_token(
            pb.RegisterCardTokenRequest(
                request_id=new_request_id(),
                card=card,
                card_token=card_token,
                catalogue_item=CARD_TOKEN.catalogue_item,
                catalogue_item_version=CARD_TOKEN.catalogue_item_version,
            )
        )

    async def revoke_card_token(self, card_token: str) -> None:
        """Ends a token; in force when this returns.

        Raises:
            NotFoundError: ``CARD_TOKEN_UNKNOWN``: the bank has no such token in use.
            OneCardCallError: no answer.
        """
        await self._client.revoke_card_token(
            pb.RevokeCardTokenRequest(
                request_id=new_request_id(),
                card_token=card_token,
                catalogue_item=CARD_TOKEN.catalogue_item,
                catalogue_item_version=CARD_TOKEN.catalogue_item_version,
            )
        )
