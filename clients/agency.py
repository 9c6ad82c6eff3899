"""An agency's counter: who stands there, and is the card real? Yes or no, for a published purpose."""

from onecard.v1 import card_authentication_pb2, cards_pb2, common_pb2, identity_pb2

from clients.channel import new_request_id
from clients.chip_card import VirtualChipCard
from clients.purpose import CARD_STATUS, COUNTER_IDENTITY, Purpose
from clients.service_client import OneCardClient

ARC_AUTHENTIC = "00"
ARC_NOT_AUTHENTIC = "05"


class Agency:
    """One counter of an agency.

    Args:
        client: of the agency.
        purpose: the catalogue item its checks serve.
        terminal_id: of the counter, at most 16 characters, may be empty.
    """

    def __init__(
        self, client: OneCardClient, *, purpose: Purpose = COUNTER_IDENTITY, terminal_id: str = ""
    ) -> None:
        self._client = client
        self._purpose = purpose
        self._terminal_id = terminal_id

    async def verify_by_chip(self, card: VirtualChipCard) -> identity_pb2.VerifyIdentityResponse:
        """The chip in the reader answers a fresh challenge.

        Raises:
            OneCardCallError: no answer.
        """
        answer = card.answer(await self.create_challenge())
        return await self._client.verify_identity(self._identity_request(chip=answer))

    async def verify_by_code(self, card_code: str) -> identity_pb2.VerifyIdentityResponse:
        """A code read from the holder's phone.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.verify_identity(self._identity_request(card_code=card_code))

    async def verify_by_name(self, *, name: str, identity_number: str) -> identity_pb2.VerifyIdentityResponse:
        """Name and number as stated.

        Raises:
            OneCardCallError: no answer.
        """
        stated = identity_pb2.NameAndNumber(name=name, identity_number=identity_number)
        return await self._client.verify_identity(self._identity_request(name_and_number=stated))

    async def create_challenge(self) -> card_authentication_pb2.CreateChallengeResponse:
        """A challenge for one chip, once.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.create_challenge(card_authentication_pb2.CreateChallengeRequest())

    async def authenticate_answer(
        self, answer: common_pb2.ChipAnswer
    ) -> card_authentication_pb2.AuthenticateCardResponse:
        """Is this answer the chip's?

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.authenticate_card(
            card_authentication_pb2.AuthenticateCardRequest(
                request_id=new_request_id(),
                catalogue_item=self._purpose.catalogue_item,
                catalogue_item_version=self._purpose.catalogue_item_version,
                answer=answer,
                terminal_id=self._terminal_id,
            )
        )

    async def authenticate_chip(
        self, card: VirtualChipCard
    ) -> card_authentication_pb2.AuthenticateCardResponse:
        """The chip in the reader answers a fresh challenge: is it genuine?

        Raises:
            OneCardCallError: no answer.
        """
        return await self.authenticate_answer(card.answer(await self.create_challenge()))

    async def authenticate_cryptogram(
        self, card: VirtualChipCard, *, transaction_date: str
    ) -> card_authentication_pb2.AuthenticateCardResponse:
        """The financial application proves itself with a cryptogram over no money; the chip checks the issuer.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        chip = card.sign(amount_minor=0, transaction_date=transaction_date)
        response = await self._client.authenticate_card(
            card_authentication_pb2.AuthenticateCardRequest(
                request_id=new_request_id(),
                catalogue_item=self._purpose.catalogue_item,
                catalogue_item_version=self._purpose.catalogue_item_version,
                cryptogram=card_authentication_pb2.CardCryptogram(pan=card.pan, chip=chip, amount_minor=0),
                terminal_id=self._terminal_id,
            )
        )
        if response.authenticated or response.arpc:
            arc = ARC_AUTHENTIC if response.authenticated else ARC_NOT_AUTHENTIC
            card.verify_issuer(chip, response_code=arc, arpc=response.arpc)
        return response

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

    def _identity_request(
        self,
        *,
        chip: common_pb2.ChipAnswer | None = None,
        card_code: str | None = None,
        name_and_number: identity_pb2.NameAndNumber | None = None,
    ) -> identity_pb2.VerifyIdentityRequest:
        request = identity_pb2.VerifyIdentityRequest(
            request_id=new_request_id(),
            catalogue_item=self._purpose.catalogue_item,
            catalogue_item_version=self._purpose.catalogue_item_version,
            terminal_id=self._terminal_id,
        )
        if chip is not None:
            request.chip.CopyFrom(chip)
        elif card_code is not None:
            request.card_code = card_code
        elif name_and_number is not None:
            request.name_and_number.CopyFrom(name_and_number)
        return request
