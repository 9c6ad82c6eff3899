"""From ``AuthorizeRequest`` to a money operation: every field checked, every further grant asked for."""

from dataclasses import dataclass
from datetime import date

from onecard.v1 import authorization_pb2 as pb

from crypto.sealing import BlindIndex
from server.authorization.answers import CNY
from server.authorization.credential_conversion import CredentialConverter, require_pin_allowed
from server.authorization.credentials import Credentials
from server.authorization.operations import (
    MTI_AUTHORIZATION,
    MTI_CLASSES,
    MTI_FINANCIAL,
    MTI_REVERSAL,
    MoneyOperation,
    OriginalKey,
)
from server.cards.directory import CredentialKind
from server.cards.identifiers import parse_pan
from server.cards.presented import PresentedCryptogram
from server.edge import fields
from server.edge.caller import Participant
from server.edge.chip import presented_cryptogram
from server.edge.intake import Intake
from server.engine.operation import Capability, MoneyFields, OperationKind, OtherCard
from server.engine.request_log import switch_key
from server.errors import MalformedFieldError
from server.rulebook.rules import WALLET_MAX, Channel

STAN_MAX = 999_999
TERMINAL_TIME_MAX_UNIX_MS = 2**53
RRN_SIZE = 12

KINDS: dict[int, OperationKind] = {
    value: OperationKind[name.removeprefix("OPERATION_TYPE_")]
    for name, value in pb.OperationType.items()
    if value
}
# What a chip signs for.
_WITH_CHIP = frozenset(
    {
        OperationKind.PURCHASE,
        OperationKind.CASH_WITHDRAWAL,
        OperationKind.TRANSFER,
        OperationKind.TAP,
        OperationKind.PRE_AUTHORIZATION,
        OperationKind.BALANCE_INQUIRY,
    }
)
_FOLLOWING = frozenset(
    {
        OperationKind.INCREMENT,
        OperationKind.COMPLETION,
        OperationKind.VOID,
        OperationKind.REFUND,
        OperationKind.REVERSAL,
    }
)
_WITHOUT_AMOUNT = frozenset({OperationKind.BALANCE_INQUIRY, OperationKind.VOID})
_ADVISED = frozenset(
    {OperationKind.PURCHASE, OperationKind.TAP, OperationKind.COMPLETION, OperationKind.REFUND}
)
_FURTHER_CLASSES: dict[OperationKind, str] = {
    OperationKind.DEPOSIT: "deposit",
    OperationKind.BENEFIT_CREDIT: "benefit_credit",
}
ADVICE_CLASS = "advice"
_CHANNELS: dict[OperationKind, Channel] = {
    OperationKind.PURCHASE: Channel.CHIP,
    OperationKind.CASH_WITHDRAWAL: Channel.CASH,
    OperationKind.TRANSFER: Channel.TRANSFER,
    OperationKind.TAP: Channel.TAP,
    OperationKind.PRE_AUTHORIZATION: Channel.PRE_AUTHORIZATION,
    OperationKind.INCREMENT: Channel.PRE_AUTHORIZATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpKey:
    """One of three: request id, operation id (of the RRN), or switch key and business date together."""

    request_id: str | None = None
    operation_id: int | None = None
    switch_key: bytes | None = None
    business_date: date | None = None


class Converter:
    """Converts requests; the same for unary calls and frames."""

    def __init__(
        self,
        *,
        capability: Capability,
        intake: Intake,
        blind_index: BlindIndex,
        credentials: CredentialConverter,
    ) -> None:
        self._capability = capability
        self._intake = intake
        self._blind_index = blind_index
        self._credentials = credentials

    def convert(
        self, request: pb.AuthorizeRequest, caller: Participant, *, deadline: float
    ) -> MoneyOperation:
        """Checks every field.

        Raises:
            MalformedFieldError: a field breaks its bounds.
            NotGrantedError: the operation needs a further RPC class.
        """
        request_id = fields.request_id(request.request_id)
        kind = _kind(request, caller)
        amount_minor = _amount(request, kind)
        if request.currency_code != CNY:
            raise MalformedFieldError("currency_code", "must be CNY")
        credentials: Credentials | None = None
        if request.card_code or request.card_token:
            pan = ""
            credentials = self._credentials.naming(request, kind, caller)
            card_index = credentials.card_index
        else:
            pan = fields.parsed("pan", parse_pan, request.pan)
            card_index = self._blind_index.of(pan, kind=CredentialKind.PAN)
        terminal_id = fields.visible("terminal_id", request.terminal_id, length_min=1, length_max=16)
        _check_bounds(request)
        _check_modifiers(request, kind, caller)
        if request.HasField("pin") or request.HasField("mac"):
            if request.HasField("pin"):
                require_pin_allowed(request, kind)
            credentials = self._credentials.proving(credentials, request, caller)
        channel = _CHANNELS.get(kind)
        if not pan and kind is OperationKind.PURCHASE:
            channel = Channel.CODE if request.card_code else Channel.CARD_ON_FILE
        stan = request.stan
        mti_class = MTI_CLASSES.get(kind, MTI_FINANCIAL)
        money = MoneyFields(
            amount_minor=amount_minor,
            stan=stan,
            mti_class=mti_class,
            switch_key=switch_key(
                caller.participant_id, stan=stan, mti_class=mti_class, terminal_id=terminal_id
            ),
            merchant_id=fields.visible("merchant_id", request.merchant_id, length_max=15),
            terminal_time_unix_ms=request.terminal_time_unix_ms,
            channel=channel,
        )
        original = _original(request, kind, terminal_id, caller, request_id=request_id)
        return MoneyOperation(
            capability=self._capability,
            kind=kind,
            participant_id=caller.participant_id,
            request_id=request_id,
            request_digest=self._intake.digest(request),
            deadline=deadline,
            card_index=card_index,
            terminal_id=terminal_id,
            money=money,
            caller=caller,
            presented=_chip(request, kind, pan=pan, amount_minor=amount_minor),
            other=self._other(request, kind, pan=pan),
            wallet=request.wallet or 1,
            channel=channel,
            original=original,
            named_keys=original.keys if original is not None else (),
            is_advice=request.is_advice,
            partial_approval_allowed=request.partial_approval_allowed,
            more_completions_follow=request.more_completions_follow,
            credentials=credentials,
        )

    def _other(self, request: pb.AuthorizeRequest, kind: OperationKind, *, pan: str) -> OtherCard | None:
        to_pan = request.to_pan
        if kind is OperationKind.TRANSFER or (kind is OperationKind.REVERSAL and to_pan):
            number = fields.parsed("to_pan", parse_pan, to_pan)
            if number == pan:
                raise MalformedFieldError("to_pan", "must be another card")
            return OtherCard(self._blind_index.of(number, kind=CredentialKind.PAN))
        if to_pan:
            raise MalformedFieldError("to_pan", "is for transfers and their reversals only")
        return None


def _kind(request: pb.AuthorizeRequest, caller: Participant) -> OperationKind:
    kind = KINDS.get(request.operation)
    if kind is None:
        raise MalformedFieldError("operation", "must be one of the named operations")
    if (further := _FURTHER_CLASSES.get(kind)) is not None:
        caller.require_rpc_class(further)
    return kind


def _amount(request: pb.AuthorizeRequest, kind: OperationKind) -> int:
    if kind in _WITHOUT_AMOUNT:
        if request.amount_minor:
            raise MalformedFieldError("amount_minor", "must be 0 for this operation")
        return 0
    minimum = 0 if kind is OperationKind.REVERSAL else 1
    return fields.amount_minor("amount_minor", request.amount_minor, minimum=minimum)


def _check_bounds(request: pb.AuthorizeRequest) -> None:
    if not 1 <= request.stan <= STAN_MAX:
        raise MalformedFieldError("stan", f"must be 1 to {STAN_MAX}")
    if not 0 <= request.terminal_time_unix_ms <= TERMINAL_TIME_MAX_UNIX_MS:
        raise MalformedFieldError("terminal_time_unix_ms", "must be milliseconds since 1970")
    if request.wallet > WALLET_MAX:
        raise MalformedFieldError("wallet", f"must be 0 to {WALLET_MAX}")


def _check_modifiers(request: pb.AuthorizeRequest, kind: OperationKind, caller: Participant) -> None:
    if request.is_advice:
        if kind not in _ADVISED:
            raise MalformedFieldError("is_advice", "is for PURCHASE, TAP, COMPLETION and REFUND only")
        caller.require_rpc_class(ADVICE_CLASS)
    if request.partial_approval_allowed and (kind is not OperationKind.PURCHASE or request.is_advice):
        raise MalformedFieldError("partial_approval_allowed", "is for an online PURCHASE only")
    if request.more_completions_follow and kind is not OperationKind.COMPLETION:
        raise MalformedFieldError("more_completions_follow", "is for COMPLETION only")


def _chip(
    request: pb.AuthorizeRequest, kind: OperationKind, *, pan: str, amount_minor: int
) -> PresentedCryptogram | None:
    if not request.HasField("chip"):
        if pan and kind in _WITH_CHIP and not request.is_advice:
            raise MalformedFieldError("chip", "is required for this operation")
        return None
    if not pan or kind not in _WITH_CHIP:
        raise MalformedFieldError("chip", "must not be set for this operation")
    return presented_cryptogram("chip", request.chip, pan=pan, amount_minor=amount_minor)


def _original(
    request: pb.AuthorizeRequest,
    kind: OperationKind,
    terminal_id: str,
    caller: Participant,
    *,
    request_id: str,
) -> OriginalKey | None:
    if kind not in _FOLLOWING:
        if request.HasField("original"):
            raise MalformedFieldError("original", "must not be set for this operation")
        return None
    named = request.original
    if not (named.request_id or named.rrn or named.stan):
        raise MalformedFieldError("original", "must name the original by request_id, rrn or stan")
    if named.stan > STAN_MAX:
        raise MalformedFieldError("original.stan", f"must be 1 to {STAN_MAX}")
    if named.mti_class not in {0, MTI_AUTHORIZATION, MTI_FINANCIAL}:
        raise MalformedFieldError("original.mti_class", "must be 0, 1 or 2")
    business_date: date | None = None
    if named.business_date:
        business_date = fields.calendar_date("original.business_date", named.business_date)
    other_terminal = fields.visible("original.terminal_id", named.terminal_id, length_max=16) or terminal_id
    mti_class = named.mti_class or MTI_FINANCIAL
    return OriginalKey(
        request_id=_other_request_id(named.request_id, request_id),
        operation_id=int(fields.digits("original.rrn", named.rrn, size=RRN_SIZE)) if named.rrn else None,
        stan=named.stan or None,
        mti_class=mti_class,
        terminal_id=other_terminal,
        switch_key=switch_key(
            caller.participant_id, stan=named.stan, mti_class=mti_class, terminal_id=other_terminal
        )
        if named.stan
        else None,
        business_date=business_date,
    )


def _other_request_id(text: str, own: str) -> str | None:
    if not text:
        return None
    try:
        named = fields.request_id(text)
    except MalformedFieldError:
        raise MalformedFieldError("original.request_id", "must be a UUID") from None
    if named == own:
        raise MalformedFieldError("original.request_id", "must be another request's")
    return named


def look_up_key(request: pb.LookUpOperationRequest, caller: Participant) -> LookUpKey:
    """What the request names.

    Raises:
        MalformedFieldError: no key, or a malformed one.
    """
    which = request.WhichOneof("key")
    if which == "request_id":
        return LookUpKey(request_id=fields.request_id(request.request_id))
    if which == "rrn":
        return LookUpKey(operation_id=int(fields.digits("rrn", request.rrn, size=RRN_SIZE)))
    if which != "switch_key":
        raise MalformedFieldError("key", "must be a request id, an RRN or a switch key")
    key = request.switch_key
    if not 1 <= key.stan <= STAN_MAX:
        raise MalformedFieldError("switch_key.stan", f"must be 1 to {STAN_MAX}")
    if key.mti_class not in {MTI_AUTHORIZATION, MTI_FINANCIAL, MTI_REVERSAL}:
        raise MalformedFieldError("switch_key.mti_class", "must be 1, 2 or 4")
    terminal_id = fields.visible("switch_key.terminal_id", key.terminal_id, length_min=1, length_max=16)
    return LookUpKey(
        switch_key=switch_key(
            caller.participant_id, stan=key.stan, mti_class=key.mti_class, terminal_id=terminal_id
        ),
        business_date=fields.calendar_date("switch_key.business_date", key.business_date),
    )
