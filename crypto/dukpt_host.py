"""The host's side of DUKPT for many transactions at once: a bounded memory of the key trees' inner nodes.

Straight derivation walks every one of a transaction's counter with new cipher contexts, 3.5 to 5 µs each.
But terminals count upward, so that nearly all of a walk was walked before. ``DukptHost`` keeps *families*:
for an inner node of a terminal's tree, its children's keys, all made by one context in one call. A counter's
key is then a slice of the family of the counter without its lowest one. A terminal never seen costs as much
as the straight way (under 3DES up to a third more): its first families are an investment.

Must never answer otherwise than ``derive_working_key``, the straight way, which it is tested against; and
never let a malformed request disturb its neighbours.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, Protocol, SupportsIndex

from crypto import dukpt_aes, dukpt_tdes
from crypto.blocks import ecb_encryptor
from crypto.dukpt_aes import KEY_SHAPES, KEY_USES, KeyShape, WorkingKeyType, derivation_data
from crypto.dukpt_tdes import DukptKeyUse, KsnError, ksn_number
from crypto.errors import KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage

_WORD_MASK = (1 << 64) - 1

WorkingKeyResult = Key | KsnError | KeyUsageError


def derive_working_key(
    bdk: Key, *, ksn: bytes, use: DukptKeyUse, key_type: WorkingKeyType | None = None
) -> Key:
    """BDK → working key, the straight way; what ``DukptHost`` must agree with, and is measured against.

    Args:
        bdk: usage ``BDK``; 3DES, AES or SM4.
        ksn: 10 bytes under 3DES, 12 under AES and SM4.
        use: what the key is for.
        key_type: algorithm and size; the BDK's when absent.
    Raises:
        KeyUsageError: not a BDK, or a working key that may not come from it.
        KsnError: of no transaction.
    Source: X9.24-1:2009 annex A (3DES); X9.24-3:2017 6 (AES); SM4 is a profile of this project.
    """
    if bdk.cipher is Cipher.TDES:
        _require_tdes_type(key_type)
        initial_key = dukpt_tdes.derive_initial_key(bdk, ksn=ksn)
        return dukpt_tdes.derive_working_key(initial_key, ksn=ksn, use=use)
    initial_key = dukpt_aes.derive_initial_key(bdk, ksn=ksn)
    return dukpt_aes.derive_working_key(initial_key, ksn=ksn, use=use, key_type=key_type)


def _require_tdes_type(key_type: WorkingKeyType | None) -> None:
    if key_type not in (None, WorkingKeyType.TDES_2KEY):
        raise KeyUsageError("3DES DUKPT has 3DES working keys only")


class _KeyTree(Protocol):
    """What the two DUKPTs do differently. A node is a KSN as a number; its lowest bits are the counter."""

    counter_mask: int

    def number(self, ksn: bytes) -> int:
        """KSN to node; KsnError."""

    def initial_values(self, roots: Sequence[int]) -> Iterable[bytes]:
        """Initial keys of many terminals in one ECB call under the BDK."""

    def family(self, node: int, value: bytes) -> bytes:
        """All children's keys of an inner node."""

    def child(self, family: bytes, bit: int) -> bytes:
        """The key of the child with that bit set."""

    def working_key(
        self, node: int, value: bytes, use: DukptKeyUse, shape: KeyShape, *, with_family: bool
    ) -> tuple[Key, bytes | None]:
        """A working key, and the node's family where it comes out of the same context; KeyUsageError."""


def _repeated(count: int, width: int) -> int:
    """Factor that writes a number of ``width`` bits ``count`` times side by side."""
    return sum(1 << width * place for place in range(count))


class _TdesTree:
    """X9.24-1: a family is the left halves of all children, then the right halves."""

    counter_mask = dukpt_tdes.COUNTER_MASK

    def __init__(self, bdk: Key) -> None:
        varied = (int.from_bytes(bdk.value) ^ dukpt_tdes.KEY_VARIANT).to_bytes(16)
        self._left = ecb_encryptor(Cipher.TDES, bdk.value).update
        self._right = ecb_encryptor(Cipher.TDES, varied).update
        # For n children, leftmost is bit 0: the factor that repeats a word, and each child's bit in its word.
        self._layouts = [
            (_repeated(n, 64), sum(1 << bit << 64 * (n - 1 - bit) for bit in range(n)))
            for n in range(dukpt_tdes.COUNTER_BITS + 1)
        ]

    def number(self, ksn: bytes) -> int:
        return ksn_number(
            ksn,
            size=dukpt_tdes.KSN_SIZE,
            counter_bits=dukpt_tdes.COUNTER_BITS,
            ones_max=dukpt_tdes.COUNTER_ONES_MAX,
        )

    def initial_values(self, roots: Sequence[int]) -> Iterable[bytes]:
        factors = b"".join(root.to_bytes(dukpt_tdes.KSN_SIZE)[:8] for root in roots)
        left, right = self._left(factors), self._right(factors)
        return (left[at : at + 8] + right[at : at + 8] for at in range(0, len(factors), 8))

    def family(self, node: int, value: bytes) -> bytes:
        counter = node & self.counter_mask
        count = (counter & -counter).bit_length() - 1 if counter else dukpt_tdes.COUNTER_BITS
        repeat, bits = self._layouts[count]
        left, right = int.from_bytes(value[:8]), int.from_bytes(value[8:])
        registers = (node & _WORD_MASK) * repeat | bits
        halves = []
        for variant in (dukpt_tdes.HALF_VARIANT, 0):
            mask = (right ^ variant) * repeat
            encryptor = ecb_encryptor(Cipher.TDES, (left ^ variant).to_bytes(8) * 2)
            done = encryptor.update((registers ^ mask).to_bytes(8 * count))
            halves.append((int.from_bytes(done) ^ mask).to_bytes(8 * count))
        return b"".join(halves)

    def child(self, family: bytes, bit: int) -> bytes:
        right = len(family) // 2 + 8 * bit
        return family[8 * bit : 8 * bit + 8] + family[right : right + 8]

    def working_key(
        self, node: int, value: bytes, use: DukptKeyUse, shape: KeyShape, *, with_family: bool
    ) -> tuple[Key, bytes | None]:
        return dukpt_tdes.working_key_of(value, use), None


class _BlockTree:
    """X9.24-3 under AES or SM4: a family is one or two blocks per child, whole blocks even for AES-192."""

    counter_mask = dukpt_aes.COUNTER_MASK

    def __init__(self, bdk: Key) -> None:
        self._cipher = bdk.cipher
        self._shape = shape = KEY_SHAPES[dukpt_aes.key_type_of(bdk)]
        self._stride = 16 * -(-shape.size // 16)
        self._encrypt = ecb_encryptor(bdk.cipher, bdk.value).update
        # Derivation data of n children are these bytes with the node's tail added to every block.
        usage = dukpt_aes.USAGE_KEY_DERIVATION
        children = [
            derivation_data(usage=usage, shape=shape, tail=1 << bit) for bit in range(dukpt_aes.COUNTER_BITS)
        ]
        self._layouts = []
        for n in range(dukpt_aes.COUNTER_BITS + 1):
            data = b"".join(children[:n])
            self._layouts.append((_repeated(len(data) // 16, 128), int.from_bytes(data), len(data)))
        self._works: dict[tuple[DukptKeyUse, KeyShape], tuple[int, int, int, KeyUsage]] = {}

    def number(self, ksn: bytes) -> int:
        return ksn_number(
            ksn,
            size=dukpt_aes.KSN_SIZE,
            counter_bits=dukpt_aes.COUNTER_BITS,
            ones_max=dukpt_aes.COUNTER_ONES_MAX,
        )

    def initial_values(self, roots: Sequence[int]) -> Iterable[bytes]:
        usage, shape = dukpt_aes.USAGE_INITIAL_KEY, self._shape
        data = [
            derivation_data(usage=usage, shape=shape, tail=root >> dukpt_aes.COUNTER_BITS) for root in roots
        ]
        values = self._encrypt(b"".join(data))
        return (values[at : at + shape.size] for at in range(0, len(values), self._stride))

    def family(self, node: int, value: bytes) -> bytes:
        return ecb_encryptor(self._cipher, value).update(self._family_data(node))

    def _family_data(self, node: int) -> bytes:
        counter = node & self.counter_mask
        count = (counter & -counter).bit_length() - 1 if counter else dukpt_aes.COUNTER_BITS
        repeat, data, size = self._layouts[count]
        # Children set bits that are zero in the node, so that adding is setting.
        return ((node & _WORD_MASK) * repeat + data).to_bytes(size)

    def child(self, family: bytes, bit: int) -> bytes:
        at = self._stride * bit
        return family[at : at + self._shape.size]

    def working_key(
        self, node: int, value: bytes, use: DukptKeyUse, shape: KeyShape, *, with_family: bool
    ) -> tuple[Key, bytes | None]:
        work = self._works.get((use, shape))
        if work is None:
            code, key_usage = KEY_USES[use]
            data = derivation_data(usage=code, shape=shape, tail=0)
            work = (_repeated(len(data) // 16, 128), int.from_bytes(data), len(data), key_usage)
            self._works[use, shape] = work
        repeat, head, size, key_usage = work
        blocks = ((node & _WORD_MASK) * repeat + head).to_bytes(size)
        if with_family:
            blocks += self._family_data(node)
        done = ecb_encryptor(self._cipher, value).update(blocks)
        return Key(shape.cipher, key_usage, done[: shape.size]), done[size:] if with_family else None


class DukptHost:
    """Working keys of one BDK's terminals, in batches.

    What the memory means for security: families are key material, future keys included, of terminals seen
    lately. The host holds the BDK, from which all of them follow, so they give an attacker who reads this
    process nothing the BDK does not; but they must be kept, and forgotten, with the same care.

    Args:
        bdk: usage ``BDK``; 3DES, AES or SM4.
        cache_max: families kept, least lately used first to go; ten per busy terminal is plenty. A family of
            a terminal's first level has 336 bytes (3DES) to 1 KiB (AES-256), the others 32 bytes on average.
    Raises:
        KeyUsageError: not such a BDK.
        ValueError: ``cache_max`` below 1.
    Source: X9.24-1:2009 annex A (3DES); X9.24-3:2017 6 (AES); SM4 is a profile of this project.
    """

    __slots__ = ("_cache_max", "_families", "_lock", "_own_type", "_tree")

    def __init__(self, bdk: Key, *, cache_max: int = 65_536) -> None:
        bdk.require(KeyUsage.BDK)
        if cache_max < 1:
            raise ValueError("the memory holds at least one family")
        is_tdes = bdk.cipher is Cipher.TDES
        self._own_type = WorkingKeyType.TDES_2KEY if is_tdes else dukpt_aes.key_type_of(bdk)
        self._tree: _KeyTree = _TdesTree(bdk) if is_tdes else _BlockTree(bdk)
        self._families: OrderedDict[int, bytes] = OrderedDict()
        self._cache_max = cache_max
        # One batch at a time: the BDK's contexts and the order of the memory are for one thread.
        self._lock = threading.Lock()

    def working_keys(
        self, requests: Sequence[tuple[bytes, DukptKeyUse]], *, key_type: WorkingKeyType | None = None
    ) -> list[WorkingKeyResult]:
        """One result per request, in order; a request that cannot be served is an error value in its place.

        Args:
            requests: KSN (10 bytes under 3DES, 12 under AES and SM4) and what the key is for.
            key_type: algorithm and size of all of them; the BDK's when absent.
        Raises:
            KeyUsageError: keys of ``key_type`` may not come from this BDK.
        """
        if self._own_type is WorkingKeyType.TDES_2KEY:
            _require_tdes_type(key_type)
        shape = dukpt_aes.working_shape(self._own_type, key_type)
        with self._lock:
            results: dict[int, WorkingKeyResult] = {}
            nodes: dict[int, int] = {}
            for index, (ksn, _) in enumerate(requests):
                try:
                    nodes[index] = self._tree.number(ksn)
                except KsnError as error:
                    results[index] = error
            unknown = self._serve(nodes, requests, shape, results, roots={})
            if unknown:
                mask = self._tree.counter_mask
                roots = sorted({node & ~mask for node in unknown.values()})
                values = dict(zip(roots, self._tree.initial_values(roots), strict=True))
                self._serve(unknown, requests, shape, results, roots=values)
        return [results[index] for index in range(len(requests))]

    def forget(self) -> None:
        """Drops every derived key; the BDK stays, and the next batches derive anew."""
        with self._lock:
            self._families.clear()

    def _serve(
        self,
        nodes: Mapping[int, int],
        requests: Sequence[tuple[bytes, DukptKeyUse]],
        shape: KeyShape,
        results: dict[int, WorkingKeyResult],
        *,
        roots: Mapping[int, bytes],
    ) -> dict[int, int]:
        """Fills in the results that known families and ``roots`` allow; returns the rest."""
        tree, families, unknown = self._tree, self._families, {}
        for index, node in nodes.items():
            value = self._value(node, roots)
            if value is None:
                unknown[index] = node
                continue
            # An even counter's children come next: their keys cost little while its context is at hand.
            with_family = not node & 1 and node not in families
            try:
                results[index], family = tree.working_key(
                    node, value, requests[index][1], shape, with_family=with_family
                )
            except KeyUsageError as error:
                results[index] = error
                continue
            if family is not None:
                self._remember(node, family)
        return unknown

    def _value(self, node: int, roots: Mapping[int, bytes]) -> bytes | None:
        """A node's key; None when neither the memory nor ``roots`` reaches it. At most 16 levels deep."""
        lowest = node & -node
        upper = node ^ lowest
        family = self._families.get(upper)
        if family is not None:
            self._families.move_to_end(upper)
        else:
            is_inner = upper & self._tree.counter_mask
            value = self._value(upper, roots) if is_inner else roots.get(upper)
            if value is None:
                return None
            family = self._tree.family(upper, value)
            self._remember(upper, family)
        return self._tree.child(family, lowest.bit_length() - 1)

    def _remember(self, node: int, family: bytes) -> None:
        if len(self._families) >= self._cache_max:
            self._families.popitem(last=False)
        self._families[node] = family

    def __repr__(self) -> str:
        return "DukptHost(****)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a host's keys are neither pickled nor copied")
