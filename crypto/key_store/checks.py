"""What is asked of a key store in batches, and what comes back. Must never show a card number or a key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, SupportsIndex

from crypto.diversification import SessionMethod
from crypto.keys import Key, KeyRef


@dataclass(slots=True, kw_only=True, repr=False)
class ArqcCheck:
    """One application cryptogram to check. Not frozen: freezing costs 1 µs per card operation.

    Args:
        key: issuer master key.
        pan: 12 to 19 decimal digits.
        psn: two decimal digits.
        data: encoded data elements, see ``TransactionData.encode``.
        atc: the counter in ``data``, 0 to 65535.
        arqc: 8 bytes as the card sent them.
        session_method: how the issuer derives session keys.
    """

    key: KeyRef
    pan: str
    psn: str
    data: bytes
    atc: int
    arqc: bytes
    session_method: SessionMethod = SessionMethod.PBOC

    def __repr__(self) -> str:
        return f"ArqcCheck(key={self.key!r}, pan=****{self.pan[-4:]}, atc={self.atc})"


class AnsweringSession(Protocol):
    """A session key at work, in this process or in a token: see ``crypto.cryptogram.ArqcSession``."""

    def arpc(self, *, arqc: bytes, arc: bytes) -> bytes:
        """ARPC method 1."""
        ...

    def answer_ahead(self, *, arqc: bytes, arcs: Sequence[bytes]) -> None:
        """Prepares ``arpc`` of these codes."""
        ...

    def arpc_method_2(self, *, arqc: bytes, csu: bytes, proprietary: bytes) -> bytes:
        """ARPC method 2."""
        ...


class VerifiedArqc:
    """A cryptogram that was proven, able to answer the card. Holds the session key, shows nothing.

    The session key goes with this object; do not keep it past the operation. For one thread at a time.
    """

    __slots__ = ("_arqc", "_session")

    def __init__(self, session: AnsweringSession, arqc: bytes) -> None:
        self._session = session
        self._arqc = arqc

    def __repr__(self) -> str:
        return "VerifiedArqc(****)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("session keys are neither pickled nor copied")

    def arpc(self, arc: bytes) -> bytes:
        """ARPC method 1 over an authorisation response code of 2 bytes: 8 bytes.

        Raises:
            ValueError: ``arc`` has another length.
            KeyStoreUnavailableError: the session key is in a token that is gone.
        Source: EMV 4.3 Book 2, 8.2.1.
        """
        return self._session.arpc(arqc=self._arqc, arc=arc)

    def answer_ahead(self, arcs: Sequence[bytes]) -> None:
        """Prepares the answers to these codes, in one call when the session key is in a token.

        ``arpc`` of one of them then needs no token and never waits: for who decides under a lock. Nothing is done
        when the session key is in this process.

        Raises:
            ValueError: a code has another length.
            KeyStoreUnavailableError: the session key is in a token that is gone.
        """
        self._session.answer_ahead(arqc=self._arqc, arcs=arcs)

    def arpc_method_2(self, *, csu: bytes, proprietary: bytes = b"") -> bytes:
        """ARPC method 2 over a card status update of 4 bytes and up to 8 of proprietary data: 4 bytes.

        Raises:
            ValueError: wrong lengths.
            KeyStoreUnavailableError: the session key is in a token that is gone.
        Source: EMV 4.3 Book 2, 8.2.2.
        """
        return self._session.arpc_method_2(arqc=self._arqc, csu=csu, proprietary=proprietary)


@dataclass(slots=True, kw_only=True, repr=False)
class InternalAuthenticationCheck:
    """One answer to INTERNAL AUTHENTICATE to check.

    Args:
        key: province-level master key.
        region: issuing region, six digits; the city key is that of its first four digits and 00.
        atr_historical_bytes: 6 to 15 bytes.
        process_factor: 8 bytes, from the challenge.
        original_data: 8 bytes, from the challenge.
        response: 8 bytes as the card sent them.
    """

    key: KeyRef
    region: str
    atr_historical_bytes: bytes
    process_factor: bytes
    original_data: bytes
    response: bytes

    def __repr__(self) -> str:
        return f"InternalAuthenticationCheck(key={self.key!r}, region={self.region!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKeys:
    """What the personalisation bureau writes into a chip."""

    udk_ac: Key
    ss_authentication: Key
