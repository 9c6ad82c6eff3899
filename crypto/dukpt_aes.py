"""DUKPT under AES, and the same algorithm under SM4: a key per transaction, from which no other follows.

Every key, initial, intermediate or working, is the encryption of derivation data that name what the key is
for, under the key above it. Here are the standard's steps, written straight; ``dukpt_host`` has the host's
way for many at once.

The AES sizes are X9.24-3. SM4 DUKPT is a profile of this project: no public standard defines it. It is the
same algorithm with SM4 as the block cipher, and with an algorithm indicator of its own.

Must never derive a working key stronger than the key it comes from: its length would promise what it has not.
"""

import enum
from typing import NamedTuple, NoReturn, SupportsIndex

from crypto.blocks import ecb_encryptor
from crypto.dukpt_tdes import DukptKeyUse, FutureKeys, KsnError, ksn_number
from crypto.errors import KeyStateError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage

KSN_SIZE = 12
COUNTER_BITS = 32
COUNTER_MASK = (1 << COUNTER_BITS) - 1
COUNTER_ONES_MAX = 16
# Right half of the initial key id ‖ counter: what derivation data below the initial key carry.
TAIL_MASK = (1 << 64) - 1
USAGE_KEY_DERIVATION = 0x8000
USAGE_INITIAL_KEY = 0x8001
_VERSION = 0x01


class WorkingKeyType(enum.Enum):
    """Algorithm and size of a derived key."""

    TDES_2KEY = "TDES_2KEY"
    AES_128 = "AES_128"
    AES_192 = "AES_192"
    AES_256 = "AES_256"
    SM4 = "SM4"

    # Enum hashes in Python, 0.2 µs per look-up; members are singletons anyway.
    __hash__ = object.__hash__


class KeyShape(NamedTuple):
    """What derivation data say about a key, and what comes out."""

    indicator: int
    size: int
    cipher: Cipher
    strength_bits: int


# X9.24-3 assigns 0000 to 0005 (0001 is 3TDEA, 0005 HMAC). FF01 is ours, far from where a standard goes on
# counting; were it assigned one day, keys would still differ, because ours come out of another cipher.
KEY_SHAPES = {
    WorkingKeyType.TDES_2KEY: KeyShape(0x0000, 16, Cipher.TDES, 112),
    WorkingKeyType.AES_128: KeyShape(0x0002, 16, Cipher.AES, 128),
    WorkingKeyType.AES_192: KeyShape(0x0003, 24, Cipher.AES, 192),
    WorkingKeyType.AES_256: KeyShape(0x0004, 32, Cipher.AES, 256),
    WorkingKeyType.SM4: KeyShape(0xFF01, 16, Cipher.SM4, 128),
}
_OWN_TYPES = {
    (Cipher.AES, 16): WorkingKeyType.AES_128,
    (Cipher.AES, 24): WorkingKeyType.AES_192,
    (Cipher.AES, 32): WorkingKeyType.AES_256,
    (Cipher.SM4, 16): WorkingKeyType.SM4,
}
# The standard's generation and encryption are the terminal's: what it sends in a request.
KEY_USES = {
    DukptKeyUse.KEY_ENCRYPTION: (0x0002, KeyUsage.KEY_BLOCK_PROTECTION),
    DukptKeyUse.PIN: (0x1000, KeyUsage.PIN_ENCRYPTION),
    DukptKeyUse.MAC_REQUEST: (0x2000, KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_RESPONSE: (0x2001, KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_BOTH: (0x2002, KeyUsage.MESSAGE_MAC),
    DukptKeyUse.DATA_REQUEST: (0x3000, KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_RESPONSE: (0x3001, KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_BOTH: (0x3002, KeyUsage.DATA_ENCRYPTION),
}


def key_type_of(key: Key) -> WorkingKeyType:
    """Algorithm and size of a key that derives.

    Raises:
        KeyUsageError: neither AES nor SM4.
    """
    try:
        return _OWN_TYPES[key.cipher, len(key.value)]
    except KeyError:
        raise KeyUsageError("this DUKPT needs an AES or SM4 key") from None


def working_shape(own_type: WorkingKeyType, key_type: WorkingKeyType | None) -> KeyShape:
    """Shape of a working key below a key of ``own_type``; the same type when none is named.

    Raises:
        KeyUsageError: stronger than the key above; or SM4 below AES, or anything but SM4 below SM4.
    Source: X9.24-3:2017 6.2 (strength); the rule on SM4 is the profile's.
    """
    own, shape = KEY_SHAPES[own_type], KEY_SHAPES[key_type or own_type]
    if shape.strength_bits > own.strength_bits:
        raise KeyUsageError("a working key may not be stronger than the key it comes from")
    if (own.cipher is Cipher.SM4) != (shape.cipher is Cipher.SM4):
        raise KeyUsageError("SM4 working keys come from SM4 keys, and nothing else does")
    return shape


def derivation_data(*, usage: int, shape: KeyShape, tail: int) -> bytes:
    """What is encrypted to become a key: one block per 16 bytes of key, each with its number.

    01 ‖ block number ‖ usage (2) ‖ algorithm (2) ‖ bits (2) ‖ tail (8).

    Args:
        usage: key usage indicator.
        shape: of the derived key.
        tail: initial key id (8 bytes) for an initial key; else its right half ‖ counter.
    Source: X9.24-3:2017 6.3.2, tables 2 and 3.
    """
    rest = (usage << 96 | shape.indicator << 80 | 8 * shape.size << 64 | tail).to_bytes(14)
    numbers = range(1, -(-shape.size // 16) + 1)
    return b"".join(bytes((_VERSION, number)) + rest for number in numbers)


def derive_value(cipher: Cipher, value: bytes, *, usage: int, shape: KeyShape, tail: int) -> bytes:
    """Derives a key's bytes: the derivation data under the upper key in ECB, cut to size.

    Source: X9.24-3:2017 6.3.1.
    """
    return ecb_encryptor(cipher, value).update(derivation_data(usage=usage, shape=shape, tail=tail))[
        : shape.size
    ]


def derive_initial_key(bdk: Key, *, ksn: bytes) -> Key:
    """The key a terminal is loaded with, of the BDK's algorithm and size.

    Args:
        bdk: base derivation key, AES or SM4, usage ``BDK``.
        ksn: 12 bytes, initial key id (8) ‖ counter (4); the counter is ignored.
    Raises:
        KeyUsageError: not an AES or SM4 BDK.
        KsnError: not 12 bytes.
    Source: X9.24-3:2017 6.3.3, usage 8001; SM4 is a profile of this project.
    """
    bdk.require(KeyUsage.BDK)
    shape = KEY_SHAPES[key_type_of(bdk)]
    if len(ksn) != KSN_SIZE:
        raise KsnError(f"a key serial number has {KSN_SIZE} bytes here")
    tail = int.from_bytes(ksn[:8])
    value = derive_value(bdk.cipher, bdk.value, usage=USAGE_INITIAL_KEY, shape=shape, tail=tail)
    return Key(bdk.cipher, KeyUsage.DUKPT_INITIAL, value)


def derive_transaction_value(initial_key: Key, *, ksn: bytes) -> bytes:
    """The transaction's derivation key: one step per one in the counter, from the left.

    Bytes, not a typed key: nothing may be done with it but derive, see ``working_key_of``.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, AES or SM4.
        ksn: 12 bytes.
    Raises:
        KeyUsageError: not an AES or SM4 initial key.
        KsnError: of no transaction.
    Source: X9.24-3:2017 6.1 and 6.3.3, usage 8000.
    """
    initial_key.require(KeyUsage.DUKPT_INITIAL)
    shape = KEY_SHAPES[key_type_of(initial_key)]
    number = ksn_number(ksn, size=KSN_SIZE, counter_bits=COUNTER_BITS, ones_max=COUNTER_ONES_MAX)
    value, tail = initial_key.value, number & TAIL_MASK & ~COUNTER_MASK
    for bit in range(COUNTER_BITS - 1, -1, -1):
        if number >> bit & 1:
            tail |= 1 << bit
            value = derive_value(
                initial_key.cipher, value, usage=USAGE_KEY_DERIVATION, shape=shape, tail=tail
            )
    return value


def derive_working_key(
    initial_key: Key, *, ksn: bytes, use: DukptKeyUse, key_type: WorkingKeyType | None = None
) -> Key:
    """Initial key → transaction's derivation key → working key.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, AES or SM4.
        ksn: 12 bytes, initial key id (8) ‖ counter (4).
        use: what the key is for.
        key_type: algorithm and size; the initial key's when absent.
    Returns:
        A key of usage ``PIN_ENCRYPTION``, ``MESSAGE_MAC``, ``DATA_ENCRYPTION`` or ``KEY_BLOCK_PROTECTION``.
    Raises:
        KeyUsageError: not an AES or SM4 initial key, or a type that may not come from it.
        KsnError: of no transaction.
    Source: X9.24-3:2017 6.3 to 6.5; SM4 is a profile of this project.
    """
    value = derive_transaction_value(initial_key, ksn=ksn)
    shape = working_shape(key_type_of(initial_key), key_type)
    return _working_key(initial_key.cipher, value, tail=int.from_bytes(ksn) & TAIL_MASK, use=use, shape=shape)


def _working_key(cipher: Cipher, value: bytes, *, tail: int, use: DukptKeyUse, shape: KeyShape) -> Key:
    code, usage = KEY_USES[use]
    return Key(shape.cipher, usage, derive_value(cipher, value, usage=code, shape=shape, tail=tail))


class AesDukptTerminal:
    """A terminal in memory, AES or SM4: loaded once, then one key per transaction until the counter ends.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, AES or SM4.
        ksn: 12 bytes; its counter is the last one used, zero when the terminal is new.
    Raises:
        KeyUsageError: not an AES or SM4 initial key.
        KsnError: not 12 bytes, or too many ones in the counter.
    Source: X9.24-3:2017 6.1 (intermediate derivation key registers); SM4 is a profile of this project.
    """

    __slots__ = ("_cipher", "_counter", "_future", "_identity", "_type", "_value")

    def __init__(self, initial_key: Key, *, ksn: bytes) -> None:
        initial_key.require(KeyUsage.DUKPT_INITIAL)
        self._type = key_type_of(initial_key)
        shape, cipher = KEY_SHAPES[self._type], initial_key.cipher
        number = int.from_bytes(ksn)
        if number & COUNTER_MASK or len(ksn) != KSN_SIZE:
            ksn_number(ksn, size=KSN_SIZE, counter_bits=COUNTER_BITS, ones_max=COUNTER_ONES_MAX)
        self._cipher, self._counter, self._identity = cipher, 0, number & ~COUNTER_MASK
        self._value: bytes | None = None
        identity_tail = self._identity & TAIL_MASK
        self._future = FutureKeys(
            initial_key.value,
            counter=number & COUNTER_MASK,
            counter_bits=COUNTER_BITS,
            ones_max=COUNTER_ONES_MAX,
            derive=lambda value, counter: derive_value(
                cipher, value, usage=USAGE_KEY_DERIVATION, shape=shape, tail=identity_tail | counter
            ),
        )

    def begin(self) -> bytes:
        """Starts a transaction and ends the one before; its KSN, 12 bytes, goes to the host.

        Raises:
            KeyStateError: the counter is at its end.
        """
        self.end()
        self._counter, self._value = self._future.take()
        return (self._identity | self._counter).to_bytes(KSN_SIZE)

    def working_key(self, use: DukptKeyUse, *, key_type: WorkingKeyType | None = None) -> Key:
        """A key of the current transaction; arguments, result and source of ``derive_working_key``.

        Raises:
            KeyStateError: no transaction was begun.
            KeyUsageError: a type that may not come from this initial key.
        """
        if self._value is None:
            raise KeyStateError("no transaction was begun")
        shape = working_shape(self._type, key_type)
        tail = (self._identity | self._counter) & TAIL_MASK
        return _working_key(self._cipher, self._value, tail=tail, use=use, shape=shape)

    def end(self) -> None:
        """Drops the current transaction's key: the terminal cannot derive it again."""
        self._value = None

    def __repr__(self) -> str:
        return "AesDukptTerminal(****)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a terminal's keys are neither pickled nor copied")
