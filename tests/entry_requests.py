"""Money operations whose card is named or proven by something else than its chip, and what that needs to be set up."""

import secrets
from typing import Any

from core_under_test import CALL_S, Caller, new_id, purchase, purpose, refusal_of
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2, identity_pb2
from virtual_card import VirtualCard

from clients.message_mac import put_mac
from crypto.key_store.software import SoftwareKeyStore

MAC_KEY = "mac-sm4"
FOR_PAYMENT = identity_pb2.CARD_CODE_USE_PAYMENT


def without_card(amount_minor: int, operation: int, **fields: Any) -> pb.AuthorizeRequest:
    """A request that names no card yet."""
    parts = {"operation": operation, "pan": "", "chip": None}
    return purchase(_NOBODY, amount_minor, **parts | fields)


class _Nobody:
    """Stands in the place of a card whose number is not sent."""

    pan = ""


_NOBODY: Any = _Nobody()


def by_code(
    code: str, amount_minor: int = 100, *, operation: int = pb.OPERATION_TYPE_PURCHASE, **fields: Any
) -> pb.AuthorizeRequest:
    return without_card(amount_minor, operation, card_code=code, **fields)


def by_token(
    token: str, amount_minor: int = 100, *, operation: int = pb.OPERATION_TYPE_PURCHASE, **fields: Any
) -> pb.AuthorizeRequest:
    return without_card(amount_minor, operation, card_token=token, **fields)


async def payment_code(caller: Caller, card: VirtualCard) -> str:
    return await caller.card_code(card, use=FOR_PAYMENT)


def new_token() -> str:
    return f"tok-{secrets.token_hex(8)}"


def registration(card: VirtualCard, token: str = "", /, **fields: Any) -> pb.RegisterCardTokenRequest:
    parts = {
        "request_id": new_id(),
        "card": common_pb2.CardReference(pan=card.pan),
        "card_token": token or new_token(),
        **purpose("card.token"),
    }
    return pb.RegisterCardTokenRequest(**parts | fields)


def revocation(token: str, /, **fields: Any) -> pb.RevokeCardTokenRequest:
    parts = {"request_id": new_id(), "card_token": token, **purpose("card.token")}
    return pb.RevokeCardTokenRequest(**parts | fields)


async def register(caller: Caller, card: VirtualCard, token: str = "") -> str:
    """The token, which names the card from now on."""
    request = registration(card, token)
    await caller.authorization.RegisterCardToken(request, timeout=CALL_S)
    return request.card_token


async def revoke(caller: Caller, token: str) -> None:
    await caller.authorization.RevokeCardToken(revocation(token), timeout=CALL_S)


def with_mac(
    store: SoftwareKeyStore, request: pb.AuthorizeRequest, *, name: str = MAC_KEY
) -> pb.AuthorizeRequest:
    """The request with a code under a development key."""
    key = store.lend(store.active(name))
    put_mac(request, key, name=name)
    return request


async def refused(call: Any) -> tuple[str, str, str]:
    """Code, reason and field of the refusal of a call that must have no outcome."""
    refusal = await refusal_of(call)
    return refusal.code.name, refusal.reason, refusal.field
