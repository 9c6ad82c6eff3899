"""A money operation on its way through a batch, and the accounts it moves money between."""

from dataclasses import dataclass
from datetime import date

from server.authorization.credentials import Credentials
from server.cards.directory import CardFacts
from server.cards.presented import CryptogramOperation
from server.engine.operation import OperationKind
from server.rulebook.rules import Channel

# Numbers of a participant's accounts without rows, from its settlement account's.
SUSPENSE_OFFSET = 400_000
FUND_OFFSET = 700_000
# A wallet's account has the number of the card's financial account, with the wallet's own number, less one, before it.
WALLET_STEP = 10**12
FINANCIAL_WALLET = 1

MTI_AUTHORIZATION, MTI_FINANCIAL, MTI_REVERSAL = 1, 2, 4
MTI_CLASSES: dict[OperationKind, int] = {
    OperationKind.PRE_AUTHORIZATION: MTI_AUTHORIZATION,
    OperationKind.INCREMENT: MTI_AUTHORIZATION,
    OperationKind.REVERSAL: MTI_REVERSAL,
}
FLAG_ADVICE, FLAG_FORCED = 1, 2


def wallet_account(financial_account_id: int, wallet: int) -> int:
    """Number of a card's wallet."""
    return financial_account_id + (wallet - 1) * WALLET_STEP


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalKey:
    """Names the operation that another follows: by the first of request id, RRN and STAN that is not None.

    ``switch_key`` is that of STAN, MTI class and terminal; a ``business_date`` of None is the present one.
    """

    request_id: str | None
    operation_id: int | None
    stan: int | None
    mti_class: int
    terminal_id: str
    switch_key: bytes | None
    business_date: date | None

    @property
    def keys(self) -> tuple[str | bytes, ...]:
        """Request id and switch key, as far as they are named."""
        return tuple(key for key in (self.request_id, self.switch_key) if key is not None)


@dataclass(slots=True, kw_only=True)
class MoneyOperation(CryptogramOperation):
    """A money operation of any kind."""

    wallet: int = FINANCIAL_WALLET
    channel: Channel | None = None
    original: OriginalKey | None = None
    is_advice: bool = False
    partial_approval_allowed: bool = False
    more_completions_follow: bool = False
    other_facts: CardFacts | None = None
    # What came beside the chip; None for most.
    credentials: Credentials | None = None

    @property
    def asks_keys(self) -> bool:
        cryptogram, credentials = self.cryptogram, self.credentials
        return (cryptogram is not None and not cryptogram.checked) or (
            credentials is not None and credentials.asks_keys
        )

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        CryptogramOperation.bind(self, card)
        if card is not None:
            self.account_id = wallet_account(card.account_id, self.wallet)

    def bind_other(self, card: CardFacts | None) -> None:
        """Takes the card that money goes to, in whatever region: its holder told the number."""
        other = self.other
        if card is not None and other is not None:
            self.other_facts = card
            other.card_id, other.account_id, other.shard = card.card_id, card.account_id, card.shard

    @property
    def is_proven(self) -> bool:
        """Whether the card proved itself, by its chip now or by a code that the present decision used up."""
        if self.cryptogram is not None:
            return self.cryptogram.verified is not None and self.cryptogram.is_fresh
        return self.credentials is not None and self.credentials.has_genuine_code

    @property
    def settlement_account_id(self) -> int:
        return self.caller.settlement_account_id

    @property
    def suspense_account_id(self) -> int:
        return self.caller.settlement_account_id + SUSPENSE_OFFSET

    @property
    def fund_account_id(self) -> int:
        return self.caller.settlement_account_id + FUND_OFFSET
