"""What is asked of the data plane in batches, and what comes back. Must never show a PIN, a card number or a key."""

from collections.abc import Mapping
from dataclasses import dataclass

from crypto.card_verification import CardVerificationKind
from crypto.diversification import SessionMethod
from crypto.issuer_script import ScriptCommand
from crypto.keys import KeyRef
from crypto.macs import Padding
from crypto.pin_block import PinBlockFormat


class _Unshown:
    """Requests hold what must not be shown: their ``repr`` is their name."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(****)"


@dataclass(slots=True, kw_only=True, repr=False)
class EncryptedPin(_Unshown):
    """A PIN as it travels.

    Args:
        key: PIN encryption key, or the BDK of the terminal.
        ksn: key serial number under a BDK, 10 bytes (3DES) or 12 (AES, SM4); else empty.
        format: layout of the block.
        block: 8 bytes (3DES) or 16 (AES, SM4).
        pan: card number it is bound to, 13 to 19 digits.
    """

    key: KeyRef
    ksn: bytes
    format: PinBlockFormat
    block: bytes
    pan: str


@dataclass(slots=True, kw_only=True, repr=False)
class PinTranslation(_Unshown):
    """A PIN to move to ``target_key`` (PIN encryption, active) and ``target_format``, for the same card."""

    source: EncryptedPin
    target_key: KeyRef
    target_format: PinBlockFormat


@dataclass(slots=True, kw_only=True, repr=False)
class PinIssue(_Unshown):
    """A random PIN of ``length`` digits to draw for a card, told under ``key`` (PIN encryption, active).

    ``format`` is one that binds the PIN to the card: any but ISO_1.
    """

    key: KeyRef
    format: PinBlockFormat
    pan: str
    length: int


@dataclass(slots=True, kw_only=True, repr=False)
class PinReferences(_Unshown):
    """What a PIN is verified against, under every usable version of the PIN verification key.

    Compare with ``hmac.compare_digest`` and keep no longer than the decision.
    """

    by_version: Mapping[int, str]
    active_version: int


@dataclass(slots=True, kw_only=True, repr=False)
class IssuedPin(_Unshown):
    """A new PIN: its encrypted block, and what it is verified against."""

    block: bytes
    references: PinReferences


@dataclass(slots=True, kw_only=True, repr=False)
class MacRequest(_Unshown):
    """A message to authenticate.

    Args:
        key: MAC key, whose usage is the algorithm, or the BDK of a terminal.
        ksn: key serial number under a BDK; else empty.
        message: 1 byte or more.
        padding: for algorithms 1 and 3; None is method 2 there, and the only choice elsewhere.
        size: bytes kept from the left, 4 up to what the algorithm gives (8 hex characters up to a block for
            UnionPay's); in a check, bytes that a code must have.
    """

    key: KeyRef
    ksn: bytes
    message: bytes
    padding: Padding | None
    size: int


@dataclass(slots=True, kw_only=True, repr=False)
class MacCheck(_Unshown):
    """A code as it came; one that is not of exactly ``request.size`` bytes does not fit."""

    request: MacRequest
    mac: bytes


@dataclass(slots=True, kw_only=True, repr=False)
class CardVerificationRequest(_Unshown):
    """A card verification value to compute: see ``crypto.card_verification``."""

    key: KeyRef
    kind: CardVerificationKind
    pan: str
    expiry: str
    service_code: str


@dataclass(slots=True, kw_only=True, repr=False)
class CardVerificationCheck(_Unshown):
    """A card verification value as it came."""

    request: CardVerificationRequest
    value: str


@dataclass(slots=True, kw_only=True, repr=False)
class IssuerScriptRequest(_Unshown):
    """A command to make for one card.

    Args:
        integrity_key: ``IMK_SMI``. Verify-only versions of this and the other keys work too: cards that were made
            under them are written to for as long as they live.
        confidentiality_key: ``IMK_SMC``; for a PIN change only.
        pan: 12 to 19 digits.
        psn: two digits.
        atc: counter of the cryptogram that the script answers.
        arqc: that cryptogram, 8 bytes.
        session_method: how the issuer derives session keys. EMV_COMMON also says that its 3DES cards hold their
            keys in odd parity, as EMV prints them, which the VIS PIN block shows.
        command: what to do. PIN_CHANGE with ``current_pin`` becomes PIN_CHANGE_WITH_CURRENT_PIN.
        new_pin: for a PIN change, and for nothing else; of the same card.
        current_pin: for a PIN change that proves it, with ``cryptogram_key`` only.
        cryptogram_key: ``IMK_AC``, for a PIN change only; the PIN is then written as VIS and PBOC do, else in ISO
            9564 format 2.
    """

    integrity_key: KeyRef
    confidentiality_key: KeyRef | None
    pan: str
    psn: str
    atc: int
    arqc: bytes
    session_method: SessionMethod
    command: ScriptCommand
    new_pin: EncryptedPin | None = None
    current_pin: EncryptedPin | None = None
    cryptogram_key: KeyRef | None = None
