"""DUKPT under 3DES: a key per transaction, from which neither an earlier nor a sister key can be computed.

A terminal holds keys of the future only; the host finds any of them from the base derivation key (BDK) and
the key serial number (KSN) the terminal sends in clear. Here are the standard's steps, written straight;
``dukpt_host`` has the host's way for many at once. ``DukptKeyUse``, ``KsnError`` and ``FutureKeys`` serve
``dukpt_aes`` too.

Must never hand out a transaction key where a working key is meant, and never put a KSN into an error's text.
"""

import enum
from collections.abc import Callable
from typing import NoReturn, SupportsIndex

from crypto.blocks import ecb_encryptor, encrypt_ecb
from crypto.errors import KeyStateError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage

KSN_SIZE = 10
COUNTER_BITS = 21
COUNTER_MASK = (1 << COUNTER_BITS) - 1
COUNTER_ONES_MAX = 10
# C0 on the left four bytes of each half: the variant under which the second half of a key is derived.
HALF_VARIANT = 0xC0C0C0C000000000
KEY_VARIANT = HALF_VARIANT << 64 | HALF_VARIANT


class KsnError(ValueError):
    """The key serial number is of no transaction: wrong length, counter zero, or too many ones in it."""


class DukptKeyUse(enum.Enum):
    """What a transaction's working key is for; request is terminal to host, response is host to terminal."""

    PIN = "PIN"
    MAC_REQUEST = "MAC_REQUEST"
    MAC_RESPONSE = "MAC_RESPONSE"
    MAC_BOTH = "MAC_BOTH"
    DATA_REQUEST = "DATA_REQUEST"
    DATA_RESPONSE = "DATA_RESPONSE"
    DATA_BOTH = "DATA_BOTH"
    KEY_ENCRYPTION = "KEY_ENCRYPTION"

    # Enum hashes in Python, 0.2 µs per look-up; members are singletons anyway.
    __hash__ = object.__hash__


def _on_both_halves(byte: int) -> int:
    """FF on one byte (0 is the leftmost) of each half of a 16-byte key."""
    half = 0xFF << 8 * (7 - byte)
    return half << 64 | half


# X9.24-1 has one variant for "request or both ways", and none for key encryption.
_VARIANTS = {
    DukptKeyUse.PIN: (_on_both_halves(7), KeyUsage.PIN_ENCRYPTION),
    DukptKeyUse.MAC_REQUEST: (_on_both_halves(6), KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_BOTH: (_on_both_halves(6), KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_RESPONSE: (_on_both_halves(4), KeyUsage.MESSAGE_MAC),
    DukptKeyUse.DATA_REQUEST: (_on_both_halves(5), KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_BOTH: (_on_both_halves(5), KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_RESPONSE: (_on_both_halves(3), KeyUsage.DATA_ENCRYPTION),
}


def ksn_number(ksn: bytes, *, size: int, counter_bits: int, ones_max: int) -> int:
    """The KSN as one number, whose lowest ``counter_bits`` bits count transactions.

    Raises:
        KsnError: not ``size`` bytes, counter zero, or more than ``ones_max`` ones in the counter.
    """
    if len(ksn) != size:
        raise KsnError(f"a key serial number has {size} bytes here")
    number = int.from_bytes(ksn)
    ones = (number & ((1 << counter_bits) - 1)).bit_count()
    if not 0 < ones <= ones_max:
        raise KsnError(f"a transaction counter has 1 to {ones_max} ones here")
    return number


def next_counter(counter: int, *, ones_max: int) -> int:
    """The counter after this one: counters of more than ``ones_max`` ones are skipped.

    Source: X9.24-1:2009 A.2, "New Key"; X9.24-3:2017 6.1.
    """
    return counter + 1 if counter.bit_count() < ones_max else counter + (counter & -counter)


def derive_initial_key(bdk: Key, *, ksn: bytes) -> Key:
    """The key a terminal is loaded with.

    Args:
        bdk: base derivation key, 3DES, usage ``BDK``.
        ksn: 10 bytes, 59 bits of identity ‖ 21 bits of counter; the counter is ignored.
    Raises:
        KeyUsageError: not a 3DES BDK.
        KsnError: not 10 bytes.
    Source: X9.24-1:2009 A.6.
    """
    _require_tdes(bdk, KeyUsage.BDK)
    if len(ksn) != KSN_SIZE:
        raise KsnError(f"a key serial number has {KSN_SIZE} bytes here")
    factor = (int.from_bytes(ksn) & ~COUNTER_MASK).to_bytes(KSN_SIZE)[:8]
    variant = Key(Cipher.TDES, KeyUsage.BDK, (int.from_bytes(bdk.value) ^ KEY_VARIANT).to_bytes(16))
    value = encrypt_ecb(bdk, factor) + encrypt_ecb(variant, factor)
    return Key(Cipher.TDES, KeyUsage.DUKPT_INITIAL, value)


def derive_next_value(value: bytes, *, ksn_right: bytes) -> bytes:
    """One step down: the key of a counter with one bit more.

    Args:
        value: upper key, 16 bytes.
        ksn_right: the right 8 bytes of the KSN, with the counter of the lower key.
    Source: X9.24-1:2009 A.2, "Non-reversible Key Generation Process".
    """
    varied = (int.from_bytes(value) ^ KEY_VARIANT).to_bytes(16)
    return _one_way(varied, ksn_right) + _one_way(value, ksn_right)


def _one_way(value: bytes, block: bytes) -> bytes:
    """R xor DES(L, block xor R), for a key L‖R; single DES runs as 3DES under L‖L‖L."""
    right = int.from_bytes(value[8:])
    mixed = (int.from_bytes(block) ^ right).to_bytes(8)
    done = ecb_encryptor(Cipher.TDES, value[:8] * 2).update(mixed)
    return (int.from_bytes(done) ^ right).to_bytes(8)


def derive_transaction_value(initial_key: Key, *, ksn: bytes) -> bytes:
    """The transaction key, 16 bytes: one step per one in the counter, from the left.

    Bytes, not a typed key: nothing may be done with it but derive, see ``working_key_of``.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, 3DES.
        ksn: 10 bytes.
    Raises:
        KeyUsageError: not a 3DES initial key.
        KsnError: of no transaction.
    Source: X9.24-1:2009 A.3.
    """
    _require_tdes(initial_key, KeyUsage.DUKPT_INITIAL)
    number = ksn_number(ksn, size=KSN_SIZE, counter_bits=COUNTER_BITS, ones_max=COUNTER_ONES_MAX)
    value, reached = initial_key.value, number & ~COUNTER_MASK
    for bit in range(COUNTER_BITS - 1, -1, -1):
        if number >> bit & 1:
            reached |= 1 << bit
            value = derive_next_value(value, ksn_right=reached.to_bytes(KSN_SIZE)[2:])
    return value


def working_key_of(transaction_value: bytes, use: DukptKeyUse) -> Key:
    """A variant of the transaction key; a data key is the variant encrypted under itself.

    Args:
        transaction_value: 16 bytes.
        use: all but ``KEY_ENCRYPTION``.
    Returns:
        A 3DES key of usage ``PIN_ENCRYPTION``, ``MESSAGE_MAC`` or ``DATA_ENCRYPTION``.
    Raises:
        KeyUsageError: 3DES DUKPT has no such working key.
    Source: X9.24-1:2009 A.4.1, table A-1.
    """
    mask, usage = variant_of(use)
    value = (int.from_bytes(transaction_value) ^ mask).to_bytes(16)
    if usage is KeyUsage.DATA_ENCRYPTION:
        value = ecb_encryptor(Cipher.TDES, value).update(value)
    return Key(Cipher.TDES, usage, value)


def variant_of(use: DukptKeyUse) -> tuple[int, KeyUsage]:
    """Mask over the transaction key, as a number of 16 bytes, and usage of the working key.

    Raises:
        KeyUsageError: 3DES DUKPT has no such working key.
    """
    try:
        return _VARIANTS[use]
    except KeyError:
        raise KeyUsageError(f"3DES DUKPT has no {use.value} key") from None


def derive_working_key(initial_key: Key, *, ksn: bytes, use: DukptKeyUse) -> Key:
    """Initial key → transaction key → working key; arguments, errors and sources of the two steps."""
    return working_key_of(derive_transaction_value(initial_key, ksn=ksn), use)


def _require_tdes(key: Key, usage: KeyUsage) -> None:
    key.require(usage)
    if key.cipher is not Cipher.TDES:
        raise KeyUsageError("3DES DUKPT needs a 3DES key")


class FutureKeys:
    """A terminal's registers, one per counter bit: the keys from which all later ones follow, and no earlier.

    Invariant: with ``_counter`` the next to be used, register b holds the key of the next counter whose
    lowest one is bit b, as far as that counter's prefix was already passed. A key leaves its register when it
    is used. Python cannot wipe the bytes; what is dropped here is the last reference.

    Args:
        initial: initial key's bytes.
        counter: last counter used, 0 for a new terminal.
        derive: key and counter of a lower key → that key.
    """

    __slots__ = ("_counter", "_counter_bits", "_derive", "_ones_max", "_registers")

    def __init__(
        self,
        initial: bytes,
        *,
        counter: int,
        counter_bits: int,
        ones_max: int,
        derive: Callable[[bytes, int], bytes],
    ) -> None:
        self._counter = next_counter(counter, ones_max=ones_max)
        self._counter_bits, self._ones_max, self._derive = counter_bits, ones_max, derive
        self._registers: dict[int, bytes] = {}
        if self.is_used_up:
            return
        key, reached = initial, 0
        for bit in range(counter_bits - 1, -1, -1):
            if reached == self._counter:
                return
            lower = derive(key, reached | 1 << bit)
            if self._counter >> bit & 1:
                reached |= 1 << bit
                key = lower
            if reached == self._counter or not self._counter >> bit & 1:
                self._registers[bit] = lower

    @property
    def is_used_up(self) -> bool:
        """No counter is left: the terminal needs a new initial key."""
        return self._counter >> self._counter_bits > 0

    def take(self) -> tuple[int, bytes]:
        """Counter and key of a new transaction; the key is held here no longer.

        Raises:
            KeyStateError: the counter is at its end.
        """
        if self.is_used_up:
            raise KeyStateError("the terminal's keys are used up")
        counter = self._counter
        lowest = (counter & -counter).bit_length() - 1
        key = self._registers.pop(lowest)
        if counter.bit_count() < self._ones_max:
            for bit in range(lowest):
                self._registers[bit] = self._derive(key, counter | 1 << bit)
        self._counter = next_counter(counter, ones_max=self._ones_max)
        return counter, key

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a terminal's keys are neither pickled nor copied")


class TdesDukptTerminal:
    """A terminal in memory: loaded once, then one key per transaction until the counter ends.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, 3DES.
        ksn: 10 bytes; its counter is the last one used, zero when the terminal is new.
    Raises:
        KeyUsageError: not a 3DES initial key.
        KsnError: not 10 bytes, or too many ones in the counter.
    Source: X9.24-1:2009 A.1 to A.3.
    """

    __slots__ = ("_future", "_identity", "_value")

    def __init__(self, initial_key: Key, *, ksn: bytes) -> None:
        _require_tdes(initial_key, KeyUsage.DUKPT_INITIAL)
        number = int.from_bytes(ksn)
        if number & COUNTER_MASK or len(ksn) != KSN_SIZE:
            ksn_number(ksn, size=KSN_SIZE, counter_bits=COUNTER_BITS, ones_max=COUNTER_ONES_MAX)
        self._identity = identity = number & ~COUNTER_MASK
        self._value: bytes | None = None
        self._future = FutureKeys(
            initial_key.value,
            counter=number & COUNTER_MASK,
            counter_bits=COUNTER_BITS,
            ones_max=COUNTER_ONES_MAX,
            derive=lambda value, counter: derive_next_value(
                value, ksn_right=(identity | counter).to_bytes(KSN_SIZE)[2:]
            ),
        )

    def begin(self) -> bytes:
        """Starts a transaction and ends the one before; its KSN, 10 bytes, goes to the host.

        Raises:
            KeyStateError: the counter is at its end.
        """
        self.end()
        counter, self._value = self._future.take()
        return (self._identity | counter).to_bytes(KSN_SIZE)

    def working_key(self, use: DukptKeyUse) -> Key:
        """A key of the current transaction; errors and source of ``working_key_of``.

        Raises:
            KeyStateError: no transaction was begun.
        """
        if self._value is None:
            raise KeyStateError("no transaction was begun")
        return working_key_of(self._value, use)

    def end(self) -> None:
        """Drops the current transaction's key: the terminal cannot derive it again."""
        self._value = None

    def __repr__(self) -> str:
        return "TdesDukptTerminal(****)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a terminal's keys are neither pickled nor copied")
