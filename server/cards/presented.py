"""What a card presents and how it is judged: cryptograms, answers to challenges, and single-use tokens.

Card authentication, identity and authorization share these, so that a card is judged alike by all of them. Checks run
before the lock, in one key-store call for a batch; single use is decided under the lock of the card.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crypto.key_store.checks import ArqcCheck, VerifiedArqc
from server.cards.directory import CardFacts
from server.cards.rules import CardUse, card_use
from server.database.statements import load
from server.edge.caller import Participant
from server.engine.operation import Batch, Operation
from server.errors import UnavailableError
from server.key_calls import KeyCalls, key_store_unavailable

STATEMENTS = load("server.cards")
# A challenge is issued by the worker's clock and judged by the database's.
CLOCK_SKEW_MAX_S = 5


@dataclass(slots=True, kw_only=True)
class PresentedOperation(Operation):
    """An operation on what was presented: a card that need not exist, in a region that must be the caller's."""

    caller: Participant
    facts: CardFacts | None = None

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        if card is not None:
            self.caller.require_region(card.issuing_region)
            self.facts = card
            self.card_id = card.card_id
            self.shard = card.shard


@dataclass(slots=True)
class CheckedCryptogram:
    """A cryptogram and what the key store said of it; ``checked`` stays False when it did not answer.

    ``is_fresh`` tells that the present decision admitted its counter.
    """

    check: ArqcCheck
    verified: VerifiedArqc | None = None
    checked: bool = False
    is_fresh: bool = False


@dataclass(slots=True)
class PresentedCryptogram:
    """An application cryptogram as presented: ``data`` is what the card signed, encoded.

    ``is_request`` tells that the card asked to go online. A card makes the cryptogram by which it refuses (AAC)
    with the same key over the same data: only its verification results tell the two apart.
    """

    pan: str
    psn: str
    data: bytes
    atc: int
    arqc: bytes
    is_request: bool


@dataclass(slots=True, kw_only=True)
class CryptogramOperation(PresentedOperation):
    """An operation on a cryptogram; ``cryptogram`` is None when no card has the PAN, or none was presented."""

    presented: PresentedCryptogram | None
    cryptogram: CheckedCryptogram | None = None

    @property
    def asks_keys(self) -> bool:
        return self.cryptogram is not None and not self.cryptogram.checked

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        # By name: zero-argument super() does not work in a dataclass with slots.
        PresentedOperation.bind(self, card)
        presented = self.presented
        if card is not None and presented is not None:
            self.cryptogram = CheckedCryptogram(
                ArqcCheck(
                    key=card.ac_key,
                    pan=presented.pan,
                    psn=presented.psn,
                    data=presented.data,
                    atc=presented.atc,
                    arqc=presented.arqc,
                )
            )
            # Another chip on the same number, or a refusal: never proven, whatever the key store would say.
            if presented.psn != card.psn or not presented.is_request:
                self.cryptogram.checked = True


async def check_cryptograms(
    keys: KeyCalls, operations: Sequence[CryptogramOperation], *, arcs: Sequence[bytes]
) -> None:
    """Asks the key store once for all that are not yet checked; fails closed when it does not answer.

    ``arcs`` are the authorisation response codes that a decision may answer with: a token computes the answers to all
    of them now, because no key may work under a lock.
    """
    cryptograms = [o.cryptogram for o in operations if o.cryptogram is not None and not o.cryptogram.checked]
    if not cryptograms:
        return

    def ask() -> list[VerifiedArqc | None]:
        proven = keys.store.verify_arqcs([cryptogram.check for cryptogram in cryptograms])
        for verified in proven if keys.store.is_blocking else ():
            if verified is not None:
                verified.answer_ahead(arcs)
        return proven

    try:
        results = await keys.ask(ask, first=True)
    except UnavailableError:
        return
    for cryptogram, verified in zip(cryptograms, results, strict=True):
        cryptogram.verified = verified
        cryptogram.checked = True


def require_checked(cryptogram: CheckedCryptogram) -> None:
    """
    Raises:
        UnavailableError: the key store did not answer, so the operation fails closed.
    """
    if not cryptogram.checked:
        raise key_store_unavailable()


def use_of(batch: Batch, facts: CardFacts | None) -> CardUse | None:
    """Whether the card may be used, by its locked row; None when there is no such card."""
    state = batch.cards.get(facts.card_id) if facts is not None else None
    if facts is None or state is None:
        return None
    return card_use(state.status, expires_on=facts.expires_on, today=batch.today)
