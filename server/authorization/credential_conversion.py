"""From ``AuthorizeRequest`` to what comes with it beside the chip: fields checked, keys and further classes granted."""

import re

from onecard.v1 import authorization_pb2 as pb

from crypto.card_code import CARD_CODE_CHARACTERS_MAX, CardCodes
from crypto.errors import CardCodeInvalidError
from crypto.key_store import KeyStore
from crypto.key_store.requests import MacCheck, MacRequest
from crypto.sealing import BlindIndex
from crypto.token_text import token_digest
from server.authorization.credentials import Credentials, PresentedCode, PresentedMac, PresentedPin
from server.cards.card_tokens import token_index
from server.cards.directory import CredentialKind
from server.cards.identifiers import luhn_digit
from server.edge import fields
from server.edge.caller import Participant
from server.edge.named_keys import NamedKeys, key_serial_number
from server.engine.operation import OperationKind
from server.errors import MalformedFieldError

CARD_TOKEN_CHARACTERS_MIN, CARD_TOKEN_CHARACTERS_MAX = 8, 64
_CARD_NUMBER = re.compile(r"[0-9]{12,19}", re.ASCII)
_WITHOUT_SEPARATORS = str.maketrans("", "", "-._/")
MAC_SIZE_MIN, MAC_SIZE_MAX = 4, 8
MAC_SEPARATOR = "|"
# A code pays, or tells what there is; in what takes money back it only says whose card it was.
_PAID_BY_CODE = frozenset({OperationKind.PURCHASE, OperationKind.BALANCE_INQUIRY})
_GIVES_BACK = frozenset({OperationKind.VOID, OperationKind.REFUND, OperationKind.REVERSAL})
_BY_TOKEN = _GIVES_BACK | {
    OperationKind.PURCHASE,
    OperationKind.PRE_AUTHORIZATION,
    OperationKind.INCREMENT,
    OperationKind.COMPLETION,
}
_WITH_PIN = frozenset(
    {
        OperationKind.PURCHASE,
        OperationKind.CASH_WITHDRAWAL,
        OperationKind.TRANSFER,
        OperationKind.TAP,
        OperationKind.PRE_AUTHORIZATION,
        OperationKind.BALANCE_INQUIRY,
    }
)


class CredentialConverter:
    """Converts what is not the chip; ``naming`` before ``proving``."""

    def __init__(
        self, *, key_store: KeyStore, blind_index: BlindIndex, card_codes: CardCodes, code_life_s: int
    ) -> None:
        """``code_life_s`` is how long a card code serves, with the tolerance between clocks."""
        self._key_store = key_store
        self._code_life_s = code_life_s
        self._blind_index = blind_index
        self._card_codes = card_codes

    def naming(self, request: pb.AuthorizeRequest, kind: OperationKind, caller: Participant) -> Credentials:
        """What names the card in place of a PAN.

        Raises:
            MalformedFieldError: more than one thing does, or not for this operation, or it is malformed.
            NotGrantedError: a token needs a further RPC class.
        """
        if request.pan or (request.card_code and request.card_token):
            raise MalformedFieldError("pan", "exactly one of pan, card_code and card_token must be set")
        if request.HasField("pin"):
            raise MalformedFieldError("pin", "is for cards that are named by pan only")
        if request.card_code:
            return Credentials(code=self._code(request, kind))
        if kind not in _BY_TOKEN:
            raise MalformedFieldError("card_token", "must not be set for this operation")
        caller.require_rpc_class("card_token")
        token = fields.visible("card_token", request.card_token, length_max=CARD_TOKEN_CHARACTERS_MAX)
        index = token_index(self._blind_index, token, participant_id=caller.participant_id)
        return Credentials(token_index=index)

    def proving(
        self, credentials: Credentials | None, request: pb.AuthorizeRequest, caller: Participant
    ) -> Credentials:
        """Adds the PIN and the code over the message that the request has.

        Raises:
            OneCardError: a field is malformed, a key is not granted, or there is none that is active.
        """
        credentials = credentials or Credentials()
        keys = NamedKeys(self._key_store, caller)
        if request.HasField("pin"):
            credentials.pin = PresentedPin(keys.bound_pin("pin", request.pin, pan=request.pan))
        if request.HasField("mac"):
            credentials.mac = PresentedMac(_mac_check(request, keys))
        return credentials

    def token_index(self, text: str, caller: Participant) -> bytes:
        """What a token to register or to end is known by, 16 bytes.

        Raises:
            MalformedFieldError: out of bounds, or a card number: a name for a card must not be one.
        """
        token = fields.visible(
            "card_token",
            text,
            length_min=CARD_TOKEN_CHARACTERS_MIN,
            length_max=CARD_TOKEN_CHARACTERS_MAX,
        )
        if _CARD_NUMBER.fullmatch(digits := token.translate(_WITHOUT_SEPARATORS)) and (
            luhn_digit(digits[:-1]) == digits[-1]
        ):
            raise MalformedFieldError("card_token", "must not be a card number")
        return token_index(self._blind_index, token, participant_id=caller.participant_id)

    def _code(self, request: pb.AuthorizeRequest, kind: OperationKind) -> PresentedCode:
        only_names = kind in _GIVES_BACK
        if not only_names and (kind not in _PAID_BY_CODE or request.is_advice):
            raise MalformedFieldError("card_code", "must not be set for this operation")
        text = fields.visible("card_code", request.card_code, length_max=CARD_CODE_CHARACTERS_MAX)
        try:
            code = self._card_codes.open(text)
        except CardCodeInvalidError:
            code = None
        card_index = (
            self._blind_index.of(code.card_alias.hex(), kind=CredentialKind.ALIAS)
            if code is not None
            else None
        )
        return PresentedCode(code, card_index, token_digest(text), self._code_life_s, only_names)


def require_pin_allowed(request: pb.AuthorizeRequest, kind: OperationKind) -> None:
    """
    Raises:
        MalformedFieldError: no holder is asked for a PIN in such an operation.
    """
    if kind not in _WITH_PIN or request.is_advice:
        raise MalformedFieldError("pin", "must not be set for this operation")


def message_of(request: pb.AuthorizeRequest) -> bytes:
    """What a code over the message covers, as ``onecard.v1.MessageMac`` says."""
    original = request.original
    return MAC_SEPARATOR.join(
        (
            request.request_id,
            str(request.operation),
            request.pan or request.card_code or request.card_token,
            str(request.amount_minor),
            request.terminal_id,
            request.merchant_id,
            str(request.stan),
            request.to_pan,
            original.request_id,
            original.rrn,
            str(original.stan),
            original.terminal_id,
            original.business_date,
            str(original.mti_class),
            str(request.wallet),
            str(int(request.is_advice)),
            str(int(request.partial_approval_allowed)),
            str(int(request.more_completions_follow)),
            request.chip.arqc.hex(),
            request.pin.block.hex(),
        )
    ).encode()


def _mac_check(request: pb.AuthorizeRequest, keys: NamedKeys) -> MacCheck:
    mac = request.mac
    if not MAC_SIZE_MIN <= len(mac.mac) <= MAC_SIZE_MAX:
        raise MalformedFieldError("mac.mac", f"must be {MAC_SIZE_MIN} to {MAC_SIZE_MAX} bytes")
    # Otherwise two requests could have one message.
    for field, value in (
        ("terminal_id", request.terminal_id),
        ("merchant_id", request.merchant_id),
        ("card_token", request.card_token),
        ("original.terminal_id", request.original.terminal_id),
    ):
        if MAC_SEPARATOR in value:
            raise MalformedFieldError(field, f"must be without {MAC_SEPARATOR} where the message has a MAC")
    ksn = key_serial_number("mac.ksn", mac.ksn)
    key = keys.key("mac.key", mac.key)
    return MacCheck(
        request=MacRequest(key=key, ksn=ksn, message=message_of(request), padding=None, size=len(mac.mac)),
        mac=mac.mac,
    )
