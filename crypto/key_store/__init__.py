"""Where keys live. The server holds a ``KeyStore`` and ``KeyRef`` handles; master key bytes never come out.

Backends: ``software`` (keys wrapped in files, a stand-in for a certified HSM 加密机) and ``pkcs11_token``. What
they share is one primitive, ECB over many blocks in one call under a master key (``batches.MasterKeys``);
what is below a master key is derived for one check, in the process or, in a token's strict mode, in the token.
"""

from collections.abc import Sequence
from typing import Protocol

from crypto.card_code import CardCodes
from crypto.challenge import Challenges
from crypto.cryptogram import TransactionData
from crypto.identification_code import IdentificationCodes
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.diagnosis import ArqcExplanation
from crypto.keys import Key, KeyInfo, KeyRef, KeyUsage
from crypto.sealing import BlindIndex, ColumnSealer, RequestDigest


class KeyStore(Protocol):
    """What the server may ask of keys.

    Every method may raise ``KeyStoreUnavailableError`` when the backend is gone: PIN and chip operations then
    fail closed. Those that take one ``ref`` raise ``KeyNotFoundError``, ``KeyUsageError`` or
    ``KeyStateError``. Objects handed out follow the rotation of their keys after ``refresh``.
    ``administration.KeyAdministration`` changes keys.
    """

    @property
    def is_blocking(self) -> bool:
        """True when a call may wait for something outside the process: not to be made on an event loop."""
        ...

    def refresh(self) -> bool:
        """Takes over what other processes changed; True when there was something. One ``stat`` otherwise.

        Raises:
            KeyStoreUnavailableError, SealBrokenError: as at the start; the keys held so far stay in force.
        """
        ...

    def describe(self) -> list[KeyInfo]:
        """All keys, by name and version, without their bytes."""
        ...

    def active(self, name: str) -> KeyRef:
        """The version of ``name`` that generates; at most one is active."""
        ...

    def usable(self, name: str) -> list[KeyRef]:
        """Every version of ``name`` that may verify, oldest first; none when there is no such name."""
        ...

    def require_usable(self, ref: KeyRef, *usages: KeyUsage) -> KeyInfo:
        """The key's description, if it has one of these usages and may verify."""
        ...

    def require_generating(self, ref: KeyRef, *usages: KeyUsage) -> KeyInfo:
        """The key's description, if it has one of these usages and is active."""
        ...

    def open_key(self, ref: KeyRef, *usages: KeyUsage, generating: bool = False) -> Key:
        """A key's value inside this process, for algorithms that a token does not have, and for key blocks.

        Never to be handed on, stored or kept past the operation. ``KeyUsageError`` also for every key of
        ``lifecycle.RESIDENT_USAGES``, wherever it is; ``generating`` asks for the active version.
        """
        ...

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """ECB over whole blocks in one call, for the usages of ``lifecycle.RESIDENT_USAGES`` in a usable state.

        In a token's strict mode ``KeyUsageError`` for the issuer and social-security masters that are in it.
        """
        ...

    def decrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """Inverse of ``encrypt_under_master``, for PIN encryption keys alone."""
        ...

    def diversify_udks(self, ref: KeyRef, cards: Sequence[tuple[str, str]]) -> list[Key]:
        """Card keys of (pan, psn) pairs, in order, by one ECB call; ``ValueError`` for a malformed card.

        ``KeyUsageError`` as ``encrypt_under_master``.
        """
        ...

    def verify_arqcs(self, checks: Sequence[ArqcCheck]) -> list[VerifiedArqc | None]:
        """Checks cryptograms, in order; ``None`` is "not proven", for whatever reason.

        One card with an unknown key version, a key of another usage or state, or a malformed number is
        ``None`` like a wrong cryptogram: it must neither pass nor fail its neighbours in the batch.
        ``explain_arqc`` tells operators the reason. Checks may mix keys and ciphers; each master key is asked
        once.
        """
        ...

    def explain_arqc(
        self, check: ArqcCheck, *, transaction: TransactionData | None = None, iad: bytes = b""
    ) -> ArqcExplanation:
        """Why a check is not proven: for operators, never for callers. Slow; ration it.

        ``KeyUsageError`` as ``encrypt_under_master``: what it tries, it computes with card keys.
        With ``transaction``, which ``check.data`` encodes, and ``iad`` (tag 9F10) other orders of them are tried.
        """
        ...

    def verify_internal_authentications(self, checks: Sequence[InternalAuthenticationCheck]) -> list[bool]:
        """Checks answers to INTERNAL AUTHENTICATE, in order; ``False`` is "not proven", as above."""
        ...

    def blind_index(self, ref: KeyRef) -> BlindIndex:
        """Look-up values of sealed data."""
        ...

    def sealer(self, ref: KeyRef) -> ColumnSealer:
        """Seals columns under the active version ``ref``; opens those of every usable version of its name."""
        ...

    def card_codes(self, ref: KeyRef) -> CardCodes:
        """Issues QR tokens under ``ref``; opens those of every usable version of its name."""
        ...

    def challenges(self, ref: KeyRef) -> Challenges:
        """Issues challenges under ``ref``; opens those of every usable version of its name."""
        ...

    def request_digest(self, ref: KeyRef) -> RequestDigest:
        """Keyed digests of requests."""
        ...

    def identification_codes(self, ref: KeyRef) -> IdentificationCodes:
        """Makes and checks identification codes."""
        ...
