"""Typed keys that cannot be shown, and the names by which they are asked for.

A key is bytes with one cipher and one usage; the usage is checked at every use, so that a key for one purpose
can never be lent to another. Must never show, compare in variable time, or serialise a key's bytes.
"""

import enum
import hmac
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, SupportsIndex

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives import hmac as keyed_hash
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from crypto.errors import KeyUnsoundError, KeyUsageError

KCV_SIZE = 3


class Cipher(enum.Enum):
    """The algorithm a key belongs to. 3DES keys are 16 bytes, K1‖K2."""

    SM4 = "SM4"
    TDES = "TDES"
    AES = "AES"
    HMAC_SM3 = "HMAC_SM3"

    # Enum hashes in Python, 0.2 µs per look-up in a table of ciphers; members are singletons anyway.
    __hash__ = object.__hash__


class KeyUsage(enum.Enum):
    """The one thing a key may do. AC: application cryptogram; SMI, SMC: secure messaging, integrity and secrecy."""

    IMK_AC = "IMK_AC"
    IMK_SMI = "IMK_SMI"
    IMK_SMC = "IMK_SMC"
    UDK_AC = "UDK_AC"
    UDK_SMI = "UDK_SMI"
    UDK_SMC = "UDK_SMC"
    SESSION_AC = "SESSION_AC"
    SESSION_SMI = "SESSION_SMI"
    SESSION_SMC = "SESSION_SMC"
    PIN_ENCRYPTION = "PIN_ENCRYPTION"
    PIN_VERIFICATION_PVV = "PIN_VERIFICATION_PVV"
    PIN_VERIFICATION_IBM3624 = "PIN_VERIFICATION_IBM3624"
    CARD_VERIFICATION = "CARD_VERIFICATION"
    BDK = "BDK"
    DUKPT_INITIAL = "DUKPT_INITIAL"
    MAC_ALGORITHM_1 = "MAC_ALGORITHM_1"
    MAC_ALGORITHM_3 = "MAC_ALGORITHM_3"
    MAC_CMAC = "MAC_CMAC"
    MAC_UNIONPAY = "MAC_UNIONPAY"
    MAC_HMAC_SM3 = "MAC_HMAC_SM3"
    DATA_ENCRYPTION = "DATA_ENCRYPTION"
    KEY_BLOCK_PROTECTION = "KEY_BLOCK_PROTECTION"
    SS_AUTHENTICATION_NATIONAL = "SS_AUTHENTICATION_NATIONAL"
    SS_AUTHENTICATION_PROVINCE = "SS_AUTHENTICATION_PROVINCE"
    SS_AUTHENTICATION_CITY = "SS_AUTHENTICATION_CITY"
    SS_AUTHENTICATION_CARD = "SS_AUTHENTICATION_CARD"
    SEALING = "SEALING"
    STORAGE = "STORAGE"
    BLIND_INDEX = "BLIND_INDEX"
    CARD_CODE = "CARD_CODE"
    CHALLENGE = "CHALLENGE"
    REQUEST_DIGEST = "REQUEST_DIGEST"
    IDENTIFICATION_CODE = "IDENTIFICATION_CODE"
    MESSAGE_MAC = "MESSAGE_MAC"


class KeyState(enum.Enum):
    """Life of a key version, in this order; a step back is refused."""

    PRE_ACTIVE = "PRE_ACTIVE"
    ACTIVE = "ACTIVE"
    VERIFY_ONLY = "VERIFY_ONLY"
    DESTROYED = "DESTROYED"


class Exportability(enum.Enum):
    """Whether a key may leave under a key-block protection key: TR-31 table 9."""

    EXPORTABLE = "E"
    NON_EXPORTABLE = "N"
    SENSITIVE = "S"


class UdkOption(enum.Enum):
    """How an issuer master key derives card keys: EMV Book 2 A1.4.1 (A) or A1.4.2 (B)."""

    A = "A"
    B = "B"


class KeyRef(NamedTuple):
    """Handle of one key version in a key store. A tuple, because it is hashed once per card operation."""

    name: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What may be known about a stored key."""

    name: str
    version: int
    usage: KeyUsage
    cipher: Cipher
    kcv: str
    state: KeyState
    udk_option: UdkOption = UdkOption.A
    exportability: Exportability = Exportability.NON_EXPORTABLE
    # Unix seconds from which the key's bytes may be dropped; None: no destruction is planned.
    destroy_at_s: int | None = None
    # The administrative change that brought this version, so that its repetition is recognised.
    change_id: str = ""

    @property
    def ref(self) -> KeyRef:
        """Handle to ask the key store with."""
        return KeyRef(self.name, self.version)


_SIZES = {
    Cipher.SM4: frozenset({16}),
    Cipher.TDES: frozenset({16}),
    Cipher.AES: frozenset({16, 24, 32}),
    Cipher.HMAC_SM3: frozenset({32}),
}
_HASH_USAGES = frozenset(
    {
        KeyUsage.BLIND_INDEX,
        KeyUsage.CARD_CODE,
        KeyUsage.CHALLENGE,
        KeyUsage.MAC_HMAC_SM3,
        KeyUsage.REQUEST_DIGEST,
    }
)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Key:
    """Key bytes with their cipher and usage; its value is in no ``repr``, format, pickle or copy.

    Args:
        cipher: algorithm the bytes belong to.
        usage: the one thing the key may do.
        value: 16 bytes for SM4 and 3DES, 16/24/32 for AES, 32 for HMAC-SM3.
    Raises:
        KeyUsageError: the usage does not go with the cipher.
        ValueError: wrong length.
    """

    cipher: Cipher
    usage: KeyUsage
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) not in _SIZES[self.cipher]:
            raise ValueError(f"{self.cipher.value} key has a wrong length")
        is_hash_key = self.cipher is Cipher.HMAC_SM3
        if self.usage is not KeyUsage.MESSAGE_MAC and is_hash_key != (self.usage in _HASH_USAGES):
            raise KeyUsageError(f"usage {self.usage.value} does not go with {self.cipher.value}")

    def __repr__(self) -> str:
        return f"Key({self.cipher.value}, {self.usage.value}, ****)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        same_kind = self.cipher is other.cipher and self.usage is other.usage
        return hmac.compare_digest(self.value, other.value) and same_kind

    # A hash of key bytes would end up in a dict's order and in debuggers: keys are looked up by KeyRef.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("keys are neither pickled nor copied")

    def require(self, *usages: KeyUsage) -> None:
        """Refuses the key for any other purpose.

        Raises:
            KeyUsageError: the key's usage is none of ``usages``.
        """
        if self.usage not in usages:
            raise KeyUsageError(f"a {self.usage.value} key may not do this")

    def kcv(self) -> str:
        """Key check value: 3 bytes as 6 upper-case hex digits.

        Source: SM4 and 3DES, ECB of a zero block, left 3 B (GP / X9.24-1 convention); AES, CMAC of a zero
        block, left 3 B (X9.24-1:2017 annex A); HMAC-SM3, own profile: HMAC of the empty message, left 3 B.
        """
        if self.cipher is Cipher.HMAC_SM3:
            digest = keyed_hash.HMAC(self.value, hashes.SM3()).finalize()
            return digest[:KCV_SIZE].hex().upper()
        if self.cipher is Cipher.AES:
            mac = cmac.CMAC(algorithms.AES(self.value))
            mac.update(bytes(16))
            return mac.finalize()[:KCV_SIZE].hex().upper()
        # 3DES as 24 bytes K1‖K2‖K1: the library deprecates the 16-byte form.
        algorithm = (
            TripleDES(self.value + self.value[:8])
            if self.cipher is Cipher.TDES
            else algorithms.SM4(self.value)
        )
        # A check value is ECB of one zero block by definition.
        encryptor = BlockCipher(algorithm, modes.ECB()).encryptor()  # noqa: S305
        return encryptor.update(bytes(16))[:KCV_SIZE].hex().upper()


def effective_bits(cipher: Cipher, value: bytes) -> bytes:
    """The bits that matter: DES ignores the lowest of each byte."""
    return bytes(byte & 0xFE for byte in value) if cipher is Cipher.TDES else value


def require_sound_value(cipher: Cipher, value: bytes) -> None:
    """Refuses a value that protects nothing; to be asked wherever one comes in from outside.

    Not asked of every ``Key``: published answers and derived keys are what they are.

    Args:
        cipher: of the key.
        value: its bytes, of a length the cipher has.
    Raises:
        KeyUnsoundError: zeros only; or a 3DES value whose halves are equal, which is single DES. Parity bits do not
            count.
    Source: NIST SP 800-67 (K1 and K2 of TDEA differ); zeros: a rule of this project.
    """
    effective = effective_bits(cipher, value)
    if not any(effective):
        raise KeyUnsoundError("the key is zero")
    if cipher is Cipher.TDES and hmac.compare_digest(effective[:8], effective[8:]):
        raise KeyUnsoundError("the two halves of the key are equal")
