"""A card, its wallets and its rules in memory, and the real decisions over them: no database, no key store.

Every operation of the scene is approved as it stands; causes of a decline are added one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from crypto.key_store.checks import ArqcCheck, VerifiedArqc
from server.authorization.operations import MTI_CLASSES, MoneyOperation, OriginalKey, wallet_account
from server.authorization.originals import Hold, HoldState, Original, Originals
from server.authorization.service import Authorize
from server.cards.directory import CardFacts
from server.cards.presented import CheckedCryptogram
from server.cards.rules import CardStatus
from server.edge.caller import Participant
from server.engine.operation import (
    Account,
    Batch,
    CardState,
    MoneyFields,
    OperationKind,
    OtherCard,
    Outcome,
)
from server.rulebook.book import RuleBook
from server.rulebook.rules import Channel, LimitRule, WalletRule

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
TODAY = date(2026, 11, 24)
BUSINESS_DATE = TODAY
FINANCIAL = 1_000_001
OTHER_FINANCIAL = 1_000_002
CARD, OTHER_CARD = 11, 12
SETTLEMENT, SUSPENSE, FUND = 7, 400_007, 700_007
CALLER = Participant(
    participant_id="bank-01",
    kind="bank",
    settlement_account_id=SETTLEMENT,
    rpc_classes=frozenset({"*"}),
    regions=("",),
    catalogue_items=frozenset({"*"}),
    keys=frozenset({"*"}),
)
CHANNELS = {
    OperationKind.PURCHASE: Channel.CHIP,
    OperationKind.CASH_WITHDRAWAL: Channel.CASH,
    OperationKind.TRANSFER: Channel.TRANSFER,
    OperationKind.TAP: Channel.TAP,
    OperationKind.PRE_AUTHORIZATION: Channel.PRE_AUTHORIZATION,
    OperationKind.INCREMENT: Channel.PRE_AUTHORIZATION,
}
WITH_CHIP = frozenset(CHANNELS) - {OperationKind.INCREMENT}


class AnyAnswer:
    """A session that answers a card with zeros."""

    def arpc(self, *, arqc: bytes, arc: bytes) -> bytes:
        return bytes(len(arqc))

    def answer_ahead(self, *, arqc: bytes, arcs: Sequence[bytes]) -> None:
        return

    def arpc_method_2(self, *, arqc: bytes, csu: bytes, proprietary: bytes) -> bytes:
        return bytes(4)


def facts(card_id: int, account_id: int) -> CardFacts:
    return CardFacts(
        card_id=card_id,
        shard=0,
        account_id=account_id,
        issuing_region="360100",
        cipher=1,
        ac_key_version=1,
        ss_key_version=1,
        psn="00",
        atr_historical_bytes=bytes(13),
        card_alias=b"",
        name_index=bytes(16),
        expires_on=TODAY,
    )


def card_state(card_id: int) -> CardState:
    return CardState(
        shard=0,
        card_id=card_id,
        status=CardStatus.NORMAL,
        atc_highest=0,
        atc_window=0,
        transaction_amount_max_minor=10**9,
        day_amount_max_minor=10**10,
        pin_tries=0,
        usage=b"",
    )


@dataclass
class Scene:
    """Two cards with 10,000 分 each, all rules open."""

    book: RuleBook = field(default_factory=RuleBook)
    card: CardState | None = field(default_factory=lambda: card_state(CARD))
    facts: CardFacts | None = field(default_factory=lambda: facts(CARD, FINANCIAL))
    other_facts: CardFacts | None = field(default_factory=lambda: facts(OTHER_CARD, OTHER_FINANCIAL))
    originals: Originals = field(default_factory=lambda: Originals(are_followed=True))
    switch_key_holder: OperationKind | None = None
    cryptogram_is_valid: bool = True
    atc: int = 1
    stan: int = 0

    def __post_init__(self) -> None:
        rule = WalletRule(name="all", cash=True, transfer=True, deposit=True)
        self.book.wallets = {1: rule, 2: rule}
        self.accounts = {n: Account(0, n, 10_000, 0) for n in (FINANCIAL, OTHER_FINANCIAL)}
        self.other_card = card_state(OTHER_CARD)
        # A decision asks neither the key store nor a sealer.
        self.capability = Authorize(SimpleNamespace(store=None), self.book, None)  # type: ignore[arg-type]
        self.batch = Batch(
            cards={},
            accounts=self.accounts,
            now=NOW,
            today=TODAY,
            business_date=BUSINESS_DATE,
            business_date_text=f"{BUSINESS_DATE:%Y%m%d}",
            operation_id=1_000,
            facts={self.capability: self.originals},
        )

    @property
    def account(self) -> Account:
        return self.accounts[FINANCIAL]

    def limit(self, **limits: Any) -> None:
        """Puts a limit rule in force for every channel."""
        self.book.limits = dict.fromkeys(self.book.limits, LimitRule(**limits))

    def operation(self, kind: OperationKind, amount_minor: int = 1_000, **changes: Any) -> MoneyOperation:
        self.stan += 1
        card_id = self.facts.card_id if self.facts is not None else None
        wallet = changes.get("wallet", 1)
        cryptogram = None
        if kind in WITH_CHIP and self.facts is not None and not changes.get("is_advice"):
            cryptogram = self.presented()
        parts: dict[str, Any] = {
            "capability": self.capability,
            "kind": kind,
            "participant_id": CALLER.participant_id,
            "request_id": f"request-{self.stan}",
            "request_digest": b"",
            "deadline": 0.0,
            "caller": CALLER,
            "card_id": card_id,
            "account_id": wallet_account(FINANCIAL, wallet) if card_id else None,
            "terminal_id": "T1",
            "facts": self.facts,
            "presented": None,
            "cryptogram": cryptogram,
            "channel": CHANNELS.get(kind),
            "money": MoneyFields(
                amount_minor=amount_minor,
                stan=self.stan,
                mti_class=MTI_CLASSES.get(kind, 2),
                switch_key=bytes(12) + self.stan.to_bytes(4),
                merchant_id="M1",
                terminal_time_unix_ms=0,
                channel=CHANNELS.get(kind),
            ),
        }
        if kind is OperationKind.TRANSFER:
            parts |= {"other": OtherCard(bytes(16)), "other_facts": self.other_facts}
        return MoneyOperation(**parts | changes)

    def presented(self) -> CheckedCryptogram:
        """What the chip shows, already checked."""
        check = ArqcCheck(key=None, pan="", psn="", data=b"", atc=self.atc, arqc=bytes(8))  # type: ignore[arg-type]
        self.atc += 1
        verified = VerifiedArqc(AnyAnswer(), bytes(8)) if self.cryptogram_is_valid else None
        return CheckedCryptogram(check, verified, checked=True)

    def follower(
        self, kind: OperationKind, original: MoneyOperation, amount_minor: int = 0, **changes: Any
    ) -> MoneyOperation:
        key = OriginalKey(
            request_id=original.request_id,
            operation_id=None,
            stan=None,
            mti_class=2,
            terminal_id="T1",
            switch_key=None,
            business_date=None,
        )
        return self.operation(kind, amount_minor, **{"original": key} | changes)

    def decide(self, operation: MoneyOperation) -> Outcome:
        batch = self.batch
        batch.cards = {OTHER_CARD: self.other_card} | ({self.card.card_id: self.card} if self.card else {})
        batch.switch_key_holder = self.switch_key_holder
        batch.operation_id += 10
        return self.capability.decide(operation, batch)

    def hold_of(self, operation: MoneyOperation) -> Hold:
        original = self.original_of(operation)
        return self.originals.holds[original.operation_id]

    def original_of(self, operation: MoneyOperation) -> Original:
        follower = self.follower(OperationKind.VOID, operation)
        assert follower.original is not None
        found = self.originals.find(follower.original, follower, self.batch)
        assert found is not None
        return found

    def expire(self, operation: MoneyOperation) -> None:
        self.hold_of(operation).expires_at = NOW - timedelta(seconds=1)

    def set_hold_state(self, operation: MoneyOperation, state: HoldState) -> None:
        hold = self.hold_of(operation)
        self.account.held_minor -= hold.held_minor
        hold.held_minor, hold.state = 0, state
