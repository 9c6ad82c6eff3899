"""The core as its callers meet it: a running instance, its participants and cards, and calls through gRPC with TLS."""

import asyncio
import functools
import itertools
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onecard.v1 import (
    authorization_pb2,
    authorization_pb2_grpc,
    card_authentication_pb2,
    card_authentication_pb2_grpc,
    cards_pb2,
    cards_pb2_grpc,
    common_pb2,
    cryptography_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
)
from virtual_card import VirtualCard

from crypto.key_store.software import SoftwareKeyStore
from server.cards.directory import CardCipher
from server.cards.seed import seed_cards
from server.database.statements import load
from server.development_ca import issue_participant_certificate

OPENING_BALANCE_MINOR = 1_000_000
# Longer than the second in which every worker reads grants again.
GRANTS_IN_FORCE_S = 1.6
CALL_S = 20.0
EVERYTHING = {"rpc_class": ["*"], "region": ["36"], "catalogue_item": ["*"], "key": ["*"]}

_stans = itertools.count(1)


@dataclass(frozen=True)
class Refusal:
    """Why a call had no outcome, as its status tells it."""

    code: grpc.StatusCode
    reason: str
    field: str
    retry_delay_ms: int
    text: str

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "Refusal":
        reason = field = ""
        retry_delay_ms = 0
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, field = info.reason, info.metadata.get("field", "")
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo.FromString(detail.value)
                retry_delay_ms = retry.retry_delay.ToMilliseconds()
        return cls(error.code(), reason, field, retry_delay_ms, str(status) + (error.details() or ""))


async def refusal_of(call: "Awaitable[Any]") -> Refusal:
    """The refusal of a call that must have no outcome."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)
    raise AssertionError(f"the call was answered: {type(answer).__name__}")


def without(rpc_class: str) -> str:
    """The participant that was granted every RPC class but one."""
    return f"no-{rpc_class.replace('_', '-')}"


@functools.cache
def distant_cutoff() -> str:
    """A cut-off twelve hours away: the business date must not change while the tests run. One for all instances:
    a database keeps its own.
    """
    local = datetime.now(UTC).astimezone(ZoneInfo("Asia/Shanghai"))
    return f"{(local.hour + 12) % 24:02}:00"


def open_directory(prefix: str) -> Path:
    """Short enough for a socket, and open to the system user PostgreSQL runs as under root."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    for place in (root, root / "data"):
        place.mkdir(exist_ok=True)
        place.chmod(0o711)
    return root


def new_id() -> str:
    return str(uuid.uuid4())


def changed(message: Any, **fields: Any) -> Any:
    """A copy of a message with other values; None clears a field."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        copy.ClearField(name)
        if value is not None:
            copy.MergeFrom(type(message)(**{name: value}))
    return copy


def purchase(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> authorization_pb2.AuthorizeRequest:
    """A purchase signed by the chip, under a request id and a STAN of its own."""
    parts: dict[str, Any] = {
        "request_id": new_id(),
        "operation": authorization_pb2.OPERATION_TYPE_PURCHASE,
        "pan": card.pan,
        "amount_minor": amount_minor,
        "currency_code": "CNY",
        "terminal_id": "T0000001",
        "merchant_id": "M00000000000001",
        "stan": next(_stans),
        "terminal_time_unix_ms": 1_767_225_600_000,
    }
    if "chip" not in fields:
        parts["chip"] = card.sign(amount_minor)
    return authorization_pb2.AuthorizeRequest(**parts | fields)


def deposit(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> authorization_pb2.AuthorizeRequest:
    parts = {"operation": authorization_pb2.OPERATION_TYPE_DEPOSIT, "chip": None}
    return purchase(card, amount_minor, **parts | fields)


def purpose(item: str) -> dict[str, Any]:
    return {"catalogue_item": item, "catalogue_item_version": 1}


def verification(**credential: Any) -> identity_pb2.VerifyIdentityRequest:
    parts = {"request_id": new_id(), **purpose("identity.counter")}
    return identity_pb2.VerifyIdentityRequest(**parts | credential)


def name_and_number(card: VirtualCard) -> identity_pb2.NameAndNumber:
    return identity_pb2.NameAndNumber(name=card.name, identity_number=card.identity_number)


def authentication(**credential: Any) -> card_authentication_pb2.AuthenticateCardRequest:
    parts = {"request_id": new_id(), **purpose("identity.counter")}
    return card_authentication_pb2.AuthenticateCardRequest(**parts | credential)


def code_issue(bearer: VirtualCard, **fields: Any) -> identity_pb2.IssueCardCodeRequest:
    parts = {
        "request_id": new_id(),
        "card": common_pb2.CardReference(pan=bearer.pan),
        "use": identity_pb2.CARD_CODE_USE_OTHER,
        **purpose("card.code"),
    }
    return identity_pb2.IssueCardCodeRequest(**parts | fields)


def loss_report(bearer: VirtualCard, **fields: Any) -> cards_pb2.ReportLossRequest:
    parts = {
        "request_id": new_id(),
        "card": common_pb2.CardReference(pan=bearer.pan),
        "kind": cards_pb2.LOSS_KIND_FORMAL,
        **purpose("card.loss"),
    }
    return cards_pb2.ReportLossRequest(**parts | fields)


def loss_lift(bearer: VirtualCard, **fields: Any) -> cards_pb2.LiftLossRequest:
    parts = {
        "request_id": new_id(),
        "card": common_pb2.CardReference(pan=bearer.pan),
        **purpose("card.loss"),
    }
    return cards_pb2.LiftLossRequest(**parts | fields)


def status_query(bearer: VirtualCard, **fields: Any) -> cards_pb2.GetCardStatusRequest:
    parts = {"card": common_pb2.CardReference(pan=bearer.pan), **purpose("card.status")}
    return cards_pb2.GetCardStatusRequest(**parts | fields)


def card_issue(card: VirtualCard, **fields: Any) -> cards_pb2.IssueCardRequest:
    facts = card.facts
    parts = {
        "request_id": new_id(),
        "name": facts.name,
        "identity_number": facts.identity_number,
        "issuing_region": facts.issuing_region,
        "card_number": facts.card_number,
        "identification_code": facts.identification_code,
        "atr_historical_bytes": facts.atr_historical_bytes,
        "pan": facts.pan,
        "expires_on": f"{facts.expires_on:%Y%m%d}",
        "cipher": int(facts.cipher),
        "transaction_amount_max_minor": 300_000,
        "day_amount_max_minor": 500_000,
        **purpose("card.apply"),
    }
    return cards_pb2.IssueCardRequest(**parts | fields)


class Caller:
    """A participant with a channel of its own."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials) -> None:
        # A subchannel of its own: otherwise equal channels share one connection, and with it one worker.
        self.channel = grpc.aio.secure_channel(
            address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.authorization = authorization_pb2_grpc.AuthorizationServiceStub(self.channel)
        self.authentication = card_authentication_pb2_grpc.CardAuthenticationServiceStub(self.channel)
        self.identity = identity_pb2_grpc.IdentityServiceStub(self.channel)
        self.cards = cards_pb2_grpc.CardServiceStub(self.channel)
        self.cryptography = cryptography_pb2_grpc.CryptographyServiceStub(self.channel)

    async def authorize(
        self, request: authorization_pb2.AuthorizeRequest, timeout_s: float = CALL_S
    ) -> authorization_pb2.AuthorizeResponse:
        return await self.authorization.Authorize(request, timeout=timeout_s)

    async def frames(
        self, *frames: "Sequence[authorization_pb2.AuthorizeRequest]"
    ) -> list[authorization_pb2.AuthorizeStreamResponse]:
        """Sends each sequence of operations as one frame of one stream."""

        async def sent() -> AsyncIterator[authorization_pb2.AuthorizeStreamRequest]:
            for frame_id, operations in enumerate(frames):
                yield authorization_pb2.AuthorizeStreamRequest(frame_id=frame_id, operations=operations)

        return [answer async for answer in self.authorization.AuthorizeStream(sent(), timeout=CALL_S)]

    async def raw(self, path: str, request: Any) -> bytes:
        """The response's bytes as they came over the wire."""
        call = self.channel.unary_unary(f"/onecard.v1.{path}", request_serializer=None)
        return await call(request.SerializeToString(), timeout=CALL_S)

    async def challenge(self) -> card_authentication_pb2.CreateChallengeResponse:
        return await self.authentication.CreateChallenge(
            card_authentication_pb2.CreateChallengeRequest(), timeout=CALL_S
        )

    async def verify(self, **credential: Any) -> identity_pb2.VerifyIdentityResponse:
        return await self.identity.VerifyIdentity(verification(**credential), timeout=CALL_S)

    async def card_code(self, bearer: VirtualCard, **fields: Any) -> str:
        issued = await self.identity.IssueCardCode(code_issue(bearer, **fields), timeout=CALL_S)
        return str(issued.card_code)


class Core:
    """A running core with its key store and its database at hand."""

    def __init__(self, *, data_dir: Path, facts: dict[str, Any], dsn: str) -> None:
        self.data_dir = data_dir
        self.facts = facts
        self.dsn = dsn
        self.address = f"localhost:{facts['port']}"
        self.store = SoftwareKeyStore.open(data_dir / "keys")
        self.database: Any = None
        self._callers: list[Caller] = []
        self._numbers = itertools.count()
        self._cards_end = 0

    async def open(self, *, cards: int) -> None:
        """Makes the participant ``bank-01``, which may everything, and ``cards`` cards."""
        self.database = await asyncpg.create_pool(self.dsn, min_size=1, max_size=4)
        await self.add_participant("bank-01", EVERYTHING)
        if cards:
            await self.seed(cards)
            self.use_cards(first=0, count=cards)
        await asyncio.sleep(GRANTS_IN_FORCE_S)

    async def close(self) -> None:
        for caller in self._callers:
            await caller.channel.close()
        await self.database.close()

    async def seed(self, count: int, *, first: int = 0, cipher: CardCipher = CardCipher.SM4) -> None:
        """Writes synthetic cards with the opening balance."""
        async with self.database.acquire() as connection:
            await seed_cards(
                connection,
                self.store,
                count=count,
                opening_balance_minor=OPENING_BALANCE_MINOR,
                first=first,
                cipher=cipher,
                shards=self.facts["shards"],
            )

    async def add_participant(self, participant_id: str, grants: dict[str, list[str]]) -> None:
        """In force on every worker after ``GRANTS_IN_FORCE_S``."""
        statements = load("server.edge")
        await self.database.fetch(statements["add_participant"], participant_id, participant_id, "bank")
        for kind, values in grants.items():
            await self.database.fetch(statements["grant_participant"], participant_id, kind, values)

    def caller(self, participant_id: str = "bank-01") -> Caller:
        """A new connection of a participant, with the certificate that names it."""
        files = issue_participant_certificate(self.data_dir, participant_id)
        credentials = grpc.ssl_channel_credentials(
            files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        return self.caller_with(credentials)

    def caller_with(self, credentials: grpc.ChannelCredentials) -> Caller:
        self._callers.append(Caller(self.address, credentials))
        return self._callers[-1]

    def use_cards(self, *, first: int, count: int) -> None:
        """Draws from the seeded cards ``first`` to ``first + count - 1`` from now on."""
        self._numbers, self._cards_end = itertools.count(first), first + count

    def card(self) -> VirtualCard:
        """A card that no test has used, in use, with the opening balance."""
        n = next(self._numbers)
        assert n < self._cards_end, "the core was opened with too few cards"
        return VirtualCard(self.store, n)

    def unissued_card(self, *, cipher: CardCipher = CardCipher.SM4) -> VirtualCard:
        """A valid card that the core does not know."""
        return VirtualCard(self.store, 1_000_000 + next(self._numbers), cipher=cipher)

    async def card_id(self, card: VirtualCard) -> int:
        index = self.store.blind_index(self.store.active("blind-index")).of(card.pan, kind="pan")
        statement = "SELECT card_id FROM card_credentials WHERE credential_index = $1"
        return await self.database.fetchval(statement, index)

    async def set_status(self, card: VirtualCard, status: int) -> None:
        """What no RPC can do yet: seals, locks or cancels a card."""
        statement = "UPDATE card_states SET status = $2 WHERE card_id = $1"
        await self.database.execute(statement, await self.card_id(card), status)

    async def balance_minor(self, card: VirtualCard, *, wallet: int = 1) -> int:
        """What a wallet holds; 0 for one that was never used."""
        statement = "SELECT posted_minor FROM accounts WHERE card_id = $1 AND wallet = $2"
        return await self.database.fetchval(statement, await self.card_id(card), wallet) or 0

    async def stored(self, request_id: str) -> int:
        """How many outcomes a request id has."""
        return await self.database.fetchval(
            "SELECT count(*) FROM operations WHERE request_id = $1", request_id
        )
