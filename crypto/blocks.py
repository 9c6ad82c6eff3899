"""Raw block encryption, ECB and CBC, under SM4, 3DES and AES: the lowest floor of this package.

A new cipher context costs 2 µs, a block on a living one 0.15 to 0.4 µs; the two classes here keep contexts
alive where that pays. Must never pad, and never decide what a key may be used for: the floors above
do.
"""

import threading
from collections.abc import Callable, Hashable

from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher

from crypto.keys import Cipher, Key

# ECB of derivation factors and single blocks is what the standards ask for; never of data.
_ECB = modes.ECB()  # noqa: S305
_ZERO_CBC = {8: modes.CBC(bytes(8)), 16: modes.CBC(bytes(16))}
_ZERO_CBC_8 = _ZERO_CBC[8]
_BLOCK_SIZES = {Cipher.SM4: 16, Cipher.TDES: 8, Cipher.AES: 16}

# What the library's own ``Cipher(algorithm, mode).encryptor()`` calls in the end. Asked directly, because its checks of
# mode against algorithm cost 1.2 µs of a context's 3.2, and no mode here is a caller's choice. It is no public name:
# pyproject.toml keeps the library below the next major version, constraints.txt says which one is tested, and the known
# answers of the start go through here.
_open_encryptor = openssl.ciphers.create_encryption_ctx


def block_size(cipher: Cipher) -> int:
    """Bytes per block: 8 for 3DES, 16 for SM4 and AES.

    Raises:
        ValueError: HMAC-SM3 has no blocks to encrypt.
    """
    try:
        return _BLOCK_SIZES[cipher]
    except KeyError:
        raise ValueError(f"{cipher.value} is not a block cipher") from None


# Past the constructors of the library's algorithms, which look at type and length once more, a tenth of a context's
# cost: ``Key`` and the callers here see to the length.
def _sm4(value: bytes) -> BlockCipherAlgorithm:
    algorithm = algorithms.SM4.__new__(algorithms.SM4)
    algorithm.key = value
    return algorithm


def _aes(value: bytes) -> BlockCipherAlgorithm:
    algorithm = algorithms.AES.__new__(algorithms.AES)
    algorithm.key = value
    return algorithm


def _tdes(value: bytes) -> BlockCipherAlgorithm:
    return _tdes_of(value + value[:8])


def _tdes_of(value: bytes) -> BlockCipherAlgorithm:
    algorithm = TripleDES.__new__(TripleDES)
    algorithm.key = value
    return algorithm


_ALGORITHMS: dict[Cipher, Callable[[bytes], BlockCipherAlgorithm]] = {
    Cipher.SM4: _sm4,
    Cipher.TDES: _tdes,
    Cipher.AES: _aes,
}


# For those that open many: the look-up and the 3DES form are done once.
ECB_OPENERS: dict[Cipher, Callable[[bytes], CipherContext]] = {
    Cipher.SM4: lambda value: _open_encryptor(_sm4(value), _ECB),
    Cipher.TDES: lambda value: _open_encryptor(_tdes_of(value + value[:8]), _ECB),
    Cipher.AES: lambda value: _open_encryptor(_aes(value), _ECB),
}


def block_algorithm(cipher: Cipher, value: bytes) -> BlockCipherAlgorithm:
    """The library's algorithm object for a key's bytes; 3DES takes 16 bytes K1‖K2."""
    return _ALGORITHMS[cipher](value)


def ecb_encryptor(cipher: Cipher, value: bytes) -> CipherContext:
    """A living ECB context; ``update`` encrypts whole blocks. Not to be used by two threads at once."""
    return ECB_OPENERS[cipher](value)


def ecb_decryptor(cipher: Cipher, value: bytes) -> CipherContext:
    """A living ECB context; ``update`` decrypts whole blocks. Not to be used by two threads at once."""
    return BlockCipher(_ALGORITHMS[cipher](value), _ECB).decryptor()


def encrypt_ecb(key: Key, blocks: bytes) -> bytes:
    """Encrypts whole blocks, each by itself.

    Args:
        key: block-cipher key.
        blocks: a multiple of the block size.
    Raises:
        ValueError: not whole blocks.
    Source: GB/T 17964-2021 (ECB); ISO/IEC 10116:2017 clause 6.
    """
    _require_whole_blocks(key, blocks)
    return ecb_encryptor(key.cipher, key.value).update(blocks)


def decrypt_ecb(key: Key, blocks: bytes) -> bytes:
    """Inverse of ``encrypt_ecb``; same arguments, errors and source."""
    _require_whole_blocks(key, blocks)
    return BlockCipher(block_algorithm(key.cipher, key.value), _ECB).decryptor().update(blocks)


def encrypt_cbc(key: Key, *, iv: bytes, blocks: bytes) -> bytes:
    """Encrypts whole blocks, each chained to the one before.

    Args:
        key: block-cipher key.
        iv: one block.
        blocks: a multiple of the block size.
    Raises:
        ValueError: not whole blocks.
    Source: GB/T 17964-2021 (CBC); ISO/IEC 10116:2017 clause 7.
    """
    _require_whole_blocks(key, blocks)
    return BlockCipher(block_algorithm(key.cipher, key.value), modes.CBC(iv)).encryptor().update(blocks)


def decrypt_cbc(key: Key, *, iv: bytes, blocks: bytes) -> bytes:
    """Inverse of ``encrypt_cbc``; same arguments, errors and source."""
    _require_whole_blocks(key, blocks)
    return BlockCipher(block_algorithm(key.cipher, key.value), modes.CBC(iv)).decryptor().update(blocks)


def _require_whole_blocks(key: Key, blocks: bytes) -> None:
    if len(blocks) % block_size(key.cipher):
        raise ValueError("not whole blocks")


def des_chain(value: bytes, blocks: bytes) -> bytes:
    """Last ciphertext block of ``blocks`` (one or more of 8 bytes) under single-DES CBC from a zero vector.

    Args:
        value: 24 bytes, a DES key three times: the library has no single DES, and 3DES with one key is it.
        blocks: one or more of 8 bytes.
    """
    return _open_encryptor(_tdes_of(value), _ZERO_CBC_8).update(blocks)[-8:]


class ZeroChain:
    """CBC from a zero vector, for many messages on one context.

    The library cannot reset a CBC context. Xoring a message's first block with the last block written undoes
    the chaining, which is the same as starting from zero, and saves the 3 µs of a second context.
    Invariant: ``_last`` is the last ciphertext block the context wrote (empty before the first).
    """

    __slots__ = ("_last", "_size", "_update")

    def __init__(self, cipher: Cipher, value: bytes) -> None:
        self._size = _BLOCK_SIZES[cipher]
        self._last = b""
        self._update = _open_encryptor(_ALGORITHMS[cipher](value), _ZERO_CBC[self._size]).update

    def last_block(self, blocks: bytes) -> bytes:
        """Last ciphertext block of ``blocks`` (one or more whole blocks) encrypted from a zero vector."""
        size = self._size
        if self._last:
            first = (int.from_bytes(blocks[:size]) ^ int.from_bytes(self._last)).to_bytes(size)
            blocks = first + blocks[size:]
        self._last = last = self._update(blocks)[-size:]
        return last

    def one_block(self, block: int) -> bytes:
        """``last_block`` of one block, given as a number because who asks has computed one."""
        last = self._last
        if last:
            block ^= int.from_bytes(last)
        self._last = last = self._update(block.to_bytes(self._size))
        return last


class ThreadContexts:
    """Living ECB contexts of long-lived keys, one per thread and key.

    One per thread because the library raises when two threads meet in one context. Bounded: past ``size_max``
    contexts a thread starts afresh, which costs time and nothing else.

    Args:
        size_max: contexts per thread.
        open_context: ``ecb_encryptor``, or ``ecb_decryptor`` for the other direction.
    """

    def __init__(
        self, *, size_max: int = 1024, open_context: Callable[[Cipher, bytes], CipherContext] = ecb_encryptor
    ) -> None:
        self._size_max = size_max
        self._open_context = open_context
        self._local = threading.local()
        self._generation = 0

    def update(self, name: Hashable, blocks: bytes, *, open_key: Callable[[], tuple[Cipher, bytes]]) -> bytes:
        """Whole blocks through the context of the key called ``name``; ``open_key`` is asked when none lives."""
        local = self._local
        if getattr(local, "generation", None) != self._generation:
            local.generation = self._generation
            local.contexts = {}
        contexts: dict[Hashable, CipherContext] = local.contexts
        context = contexts.get(name)
        if context is None:
            if len(contexts) >= self._size_max:
                contexts.clear()
            context = contexts[name] = self._open_context(*open_key())
        return context.update(blocks)

    def forget(self) -> None:
        """Drops every context, in each thread at its next use: a key was changed or destroyed."""
        self._generation += 1
