"""Purchases and deposits, as the engine runs them: checked before the lock, decided under it, posted double-entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from onecard.v1 import authorization_pb2 as pb

from server.authorization import rules
from server.authorization.rules import RESPONSE_CODES, Order, Reason
from server.cards.directory import CardFacts
from server.cards.presented import CryptogramOperation, check_cryptograms, require_checked
from server.cards.rules import advance_atc
from server.engine.operation import Batch, Capability, OperationKind, Outcome, Posting
from server.key_calls import KeyCalls

CNY = "CNY"
AUTHORIZATION_CODES = 1_000_000
RRNS = 1_000_000_000_000
# What a decision may answer a card with.
ARCS = sorted({code.encode() for code in RESPONSE_CODES.values()})


@dataclass(slots=True, kw_only=True)
class MoneyOperation(CryptogramOperation):
    """A purchase or deposit."""

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        CryptogramOperation.bind(self, card)
        if card is not None:
            self.account_id = card.account_id


class Authorize(Capability):
    """Decides money operations on one card each."""

    def __init__(self, keys: KeyCalls) -> None:
        self._keys = keys

    async def prepare(self, operations: Sequence[MoneyOperation]) -> None:
        await check_cryptograms(self._keys, operations, arcs=ARCS)

    def decide(self, operation: MoneyOperation, batch: Batch) -> Outcome:
        if operation.kind is OperationKind.PURCHASE:
            return self._decide_purchase(operation, batch)
        return self._decide_deposit(operation, batch)

    def replay(self, operation: MoneyOperation, response: bytes) -> pb.AuthorizeResponse:
        return pb.AuthorizeResponse.FromString(response)

    def _decide_purchase(self, operation: MoneyOperation, batch: Batch) -> Outcome:
        facts, cryptogram, money = operation.facts, operation.cryptogram, operation.money
        assert money is not None, "every money operation has an amount"
        card = batch.cards.get(facts.card_id) if facts is not None else None
        account = batch.accounts.get(facts.account_id) if facts is not None else None
        verified = None
        fresh = False
        if cryptogram is not None:
            require_checked(cryptogram)
            verified = cryptogram.verified
            # On every valid cryptogram, whatever the decision.
            if verified is not None and card is not None:
                fresh = advance_atc(card, cryptogram.check.atc)
        amount = money.amount_minor
        order = Order(amount, batch.switch_key_used, verified is not None, fresh)
        reason = rules.decide_purchase(
            order,
            card,
            account,
            expires_on=facts.expires_on if facts is not None else None,
            today=batch.today,
            business_date=batch.business_date,
        )
        postings: tuple[Posting, ...] = ()
        if reason is Reason.APPROVED:
            assert card is not None, "approved above"
            assert account is not None, "approved above"
            card.day_amount_minor = rules.day_amount_minor(card, batch.business_date) + amount
            card.day = batch.business_date
            card.changed = True
            account.posted_minor -= amount
            account.changed = True
            postings = (Posting(account.account_id, operation.caller.settlement_account_id, amount),)
        response_code = RESPONSE_CODES[reason]
        arpc = verified.arpc(response_code.encode()) if verified is not None else b""
        # Only a card that proved itself hears what it holds.
        available = account.available_minor if account is not None and verified is not None else 0
        return _outcome(batch, reason, response_code, available, arpc, postings)

    def _decide_deposit(self, operation: MoneyOperation, batch: Batch) -> Outcome:
        facts, money = operation.facts, operation.money
        assert money is not None, "every money operation has an amount"
        card = batch.cards.get(facts.card_id) if facts is not None else None
        reason = rules.decide_deposit(
            Order(money.amount_minor, batch.switch_key_used),
            card,
            expires_on=facts.expires_on if facts is not None else None,
            today=batch.today,
        )
        postings: tuple[Posting, ...] = ()
        if reason is Reason.APPROVED:
            assert facts is not None, "approved above"
            account = batch.accounts[facts.account_id]
            account.posted_minor += money.amount_minor
            account.changed = True
            postings = (
                Posting(operation.caller.settlement_account_id, account.account_id, money.amount_minor),
            )
        return _outcome(batch, reason, RESPONSE_CODES[reason], 0, b"", postings)


def _outcome(
    batch: Batch,
    reason: Reason,
    response_code: str,
    available_minor: int,
    arpc: bytes,
    postings: Sequence[Posting],
) -> Outcome:
    operation_id = batch.operation_id
    message = pb.AuthorizeResponse(
        response_code=response_code,
        reason=reason,  # type: ignore[arg-type]
        authorization_code=f"{operation_id % AUTHORIZATION_CODES:06d}" if reason is Reason.APPROVED else "",
        rrn=f"{operation_id % RRNS:012d}",
        available_minor=available_minor,
        currency_code=CNY,
        arpc=arpc,
        business_date=batch.business_date_text,
    )
    return Outcome(message, reason, response_code, postings)
