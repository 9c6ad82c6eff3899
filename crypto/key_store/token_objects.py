"""Keys as objects of one PKCS#11 session: found, made, used, destroyed. For the token's thread only.

Every function may raise ``pkcs11.PKCS11Error``; ``token_connection`` decides what that means. Must never make an
object that can be read out, and never show a value.
"""

import ctypes
import hashlib
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Any

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import DEFAULT
from pkcs11.exceptions import (
    AttributeReadOnly,
    AttributeTypeInvalid,
    AttributeValueInvalid,
    KeyHandleInvalid,
    NoSuchKey,
    ObjectHandleInvalid,
    PKCS11Error,
    TemplateInconsistent,
)
from pkcs11.mechanisms import GCMParams

from crypto.blocks import block_size
from crypto.diversification import odd_parity
from crypto.key_store.lifecycle import NewKey
from crypto.key_store.token_settings import AES_ECB_ENCRYPT_DATA, TokenSettings
from crypto.keys import KCV_SIZE, Cipher, KeyUsage

STORAGE_LABEL = "onecard-storage"
_STORAGE_BITS = 256
_NONCE_SIZE = 12
_DERIVED_BITS = 128
_ID_SIZE = 16
_LEFT_MAX = 1024
# Reduction of the doubling in GF(2^128): NIST SP 800-38B 5.3.
_R_128 = 0x87
_ENCRYPT_AND_DERIVE = MechanismFlag.ENCRYPT | MechanismFlag.DERIVE
_SENSITIVE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}

# What keys never do; some modules grant it to an object that does not say.
_NEVER = {
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
    Attribute.SIGN: False,
    Attribute.VERIFY: False,
}
# So that nobody may grant it afterwards; where the module has no such thing, the object is made without.
_FIXED = {Attribute.MODIFIABLE: False}
_TEMPLATE_REFUSALS = (
    AttributeReadOnly,
    AttributeTypeInvalid,
    AttributeValueInvalid,
    TemplateInconsistent,
)

# What python-pkcs11 calls a secret key: its classes are made as it meets the object's attributes.
Handle = Any


def _vendor_member(enumeration: Any, number: int) -> Any:
    """A member for any number: the library accepts only its enumerations, vendors have numbers of their own."""
    try:
        return enumeration(number)
    except ValueError:
        member = int.__new__(enumeration, number)
        member._name_, member._value_ = f"VENDOR_{number:#x}", number
        return member


def attribute_mapper() -> AttributeMapper:
    """The library's own mapper, but for key types of vendors, which it refuses to read."""
    mapper = AttributeMapper()
    pack, _ = mapper.attribute_types[Attribute.KEY_TYPE]
    mapper.register_handler(
        Attribute.KEY_TYPE, pack, lambda raw: _vendor_member(KeyType, struct.unpack("L", raw)[0])
    )
    return mapper


class TokenObjects:
    """The keys of one session, by CKA_ID."""

    def __init__(self, session: Any, settings: TokenSettings) -> None:
        self._session = session
        self._found: dict[bytes, Handle] = {}
        # Derived keys that the token would not destroy: tried again with the next.
        self._left: list[Handle] = []
        self._types = {Cipher.TDES: KeyType.DES2, Cipher.AES: KeyType.AES}
        self._ecb = {Cipher.TDES: Mechanism.DES3_ECB, Cipher.AES: Mechanism.AES_ECB}
        self._cbc = {Cipher.TDES: Mechanism.DES3_CBC, Cipher.AES: Mechanism.AES_CBC}
        self._derive = {
            Cipher.TDES: _vendor_member(Mechanism, settings.tdes_derive_mechanism),
            Cipher.AES: _vendor_member(Mechanism, settings.aes_derive_mechanism),
        }
        if settings.sm4_mechanism:
            self._types[Cipher.SM4] = _vendor_member(KeyType, settings.sm4_key_type)
            self._ecb[Cipher.SM4] = _vendor_member(Mechanism, settings.sm4_mechanism)

    @property
    def ciphers(self) -> frozenset[Cipher]:
        """What the token encrypts with."""
        return frozenset(self._ecb)

    def close(self) -> None:
        """Ends the session; what it held is gone with it. A session that is dead already is fine."""
        self._found.clear()
        self._left.clear()
        try:
            self._session.close()
        except PKCS11Error:
            return

    def forget(self) -> None:
        """Drops the handles that were found; each is looked for again when it is needed."""
        self._found.clear()

    def random(self, size: int) -> bytes:
        """Bytes of the token's generator."""
        return bytes(self._session.generate_random(8 * size))

    def find(self, object_id: bytes) -> Handle:
        """The key object of an id.

        Raises:
            NoSuchKey: there is none, or the token is gone: ask it something else to know which.
        """
        handle = self._found.get(object_id)
        if handle is None:
            # Read to the end: a search left open is closed by the garbage collector, in whatever thread.
            template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: object_id}
            handles = list(self._session.get_objects(template))
            if len(handles) != 1:
                raise NoSuchKey
            handle = self._found[object_id] = handles[0]
        return handle

    def find_key(self, object_id: bytes, cipher: Cipher, *, kcv: str) -> Handle:
        """``find`` for a key of the list: what has another check value is not the key that was put there."""
        is_known = object_id in self._found
        handle = self.find(object_id)
        if not is_known and self.kcv(handle, cipher) != kcv:
            del self._found[object_id]
            raise NoSuchKey
        return handle

    def generate_storage_key(self) -> bytes:
        """Draws an AES-256 key for wrapping and gives its id."""
        object_id = secrets.token_bytes(_ID_SIZE)
        _fixed_if_possible(
            lambda fixed: self._session.generate_key(
                KeyType.AES,
                _STORAGE_BITS,
                id=object_id,
                label=STORAGE_LABEL,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={**_SENSITIVE, **fixed},
            )
        )
        return object_id

    def generate(
        self, cipher: Cipher, usage: KeyUsage, *, label: str, size: int, object_id: bytes | None = None
    ) -> bytes:
        """Draws a key in the token and gives its id; SM4 has no generator of a public number.

        Args:
            cipher: one of ``ciphers``.
            usage: decides what the object may do.
            label: for people who look at the token.
            size: bytes.
            object_id: 16 bytes, drawn when absent.
        """
        if cipher is Cipher.SM4:
            return self.create(cipher, usage, self.random(size), label=label, object_id=object_id)
        object_id = object_id or secrets.token_bytes(_ID_SIZE)
        _fixed_if_possible(
            lambda fixed: self._session.generate_key(
                self._types[cipher],
                8 * size,
                id=object_id,
                label=label,
                store=True,
                capabilities=_capabilities(usage),
                template={**_SENSITIVE, **fixed},
            )
        )
        return object_id

    def create(
        self,
        cipher: Cipher,
        usage: KeyUsage,
        value: bytes,
        *,
        label: str,
        store: bool = True,
        object_id: bytes | None = None,
    ) -> bytes:
        """Takes a value in and gives the new object's id; args as ``generate``, ``store`` False for the session."""
        object_id = object_id or secrets.token_bytes(_ID_SIZE)
        capabilities = _capabilities(usage)
        attributes = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: self._types[cipher],
            # Modules may refuse a DES key of even parity; DES itself does not look at it.
            Attribute.VALUE: odd_parity(value) if cipher is Cipher.TDES else value,
            Attribute.ID: object_id,
            Attribute.LABEL: label,
            Attribute.TOKEN: store,
            Attribute.PRIVATE: True,
            Attribute.ENCRYPT: bool(capabilities & MechanismFlag.ENCRYPT),
            Attribute.DECRYPT: bool(capabilities & MechanismFlag.DECRYPT),
            Attribute.DERIVE: bool(capabilities & MechanismFlag.DERIVE),
            **_NEVER,
            **_SENSITIVE,
        }
        _fixed_if_possible(lambda fixed: self._session.create_object({**attributes, **fixed}))
        return object_id

    def remove(self, object_id: bytes) -> None:
        """Destroys every object of an id; there may be none."""
        self._found.pop(object_id, None)
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: object_id}
        for handle in list(self._session.get_objects(template)):
            handle.destroy()

    def destroy(self, object_id: bytes) -> None:
        """Destroys an object. Raises ``NoSuchKey`` as ``find``."""
        handle = self.find(object_id)
        del self._found[object_id]
        handle.destroy()

    def encrypt(self, handle: Handle, cipher: Cipher, blocks: bytes) -> bytes:
        """ECB over whole blocks in one call."""
        return bytes(handle.encrypt(blocks, mechanism=self._ecb[cipher])) if blocks else b""

    def decrypt(self, handle: Handle, cipher: Cipher, blocks: bytes) -> bytes:
        """Inverse of ``encrypt``."""
        return bytes(handle.decrypt(blocks, mechanism=self._ecb[cipher])) if blocks else b""

    def last_chained(self, handle: Handle, cipher: Cipher, blocks: bytes) -> bytes:
        """Last block of CBC from a zero vector over whole blocks."""
        size = block_size(cipher)
        chained = handle.encrypt(blocks, mechanism=self._cbc[cipher], mechanism_param=bytes(size))
        return bytes(chained[-size:])

    def derive(self, handle: Handle, cipher: Cipher, data: bytes) -> Handle:
        """A key of 16 bytes that is ``data`` under ``handle`` in ECB; it dies with the session or ``discard``."""
        mechanism = self._derive[cipher]
        # Held until the call is over: for 3DES the mechanism's parameter only points to the data.
        buffer = ctypes.create_string_buffer(data, len(data))
        pointed = struct.pack("PL", ctypes.addressof(buffer), len(data))
        template: dict[Attribute, Any] = dict(_SENSITIVE)
        if cipher is Cipher.TDES:
            # The length of a DES key follows from its type; told, it is refused.
            template[Attribute.VALUE_LEN] = DEFAULT
        return handle.derive_key(
            self._types[cipher],
            _DERIVED_BITS,
            mechanism=mechanism,
            mechanism_param=data if mechanism == AES_ECB_ENCRYPT_DATA else pointed,
            capabilities=_ENCRYPT_AND_DERIVE,
            template=template,
        )

    def discard(self, handles: Sequence[Handle]) -> None:
        """Destroys what ``derive`` gave; what the token will not destroy now is tried again with the next."""
        left: list[Handle] = []
        for handle in (*self._left, *handles):
            try:
                handle.destroy()
            except (KeyHandleInvalid, ObjectHandleInvalid):
                continue
            except PKCS11Error:
                left.append(handle)
        self._left = left[-_LEFT_MAX:]

    def seal(self, storage_key: Handle, plaintext: bytes, *, aad: bytes) -> bytes:
        """AES-GCM in the token: nonce ‖ ciphertext ‖ tag, with a random nonce (NIST SP 800-38D 8.2.2)."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        sealed = storage_key.encrypt(
            plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad)
        )
        return nonce + bytes(sealed)

    def open_sealed(self, storage_key: Handle, sealed: bytes, *, aad: bytes) -> bytes:
        """Inverse of ``seal``; modules differ in the error by which they refuse a changed value."""
        nonce, ciphertext = sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:]
        return bytes(
            storage_key.decrypt(
                ciphertext, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad)
            )
        )

    def kcv(self, handle: Handle, cipher: Cipher) -> str:
        """Check value of a key that cannot be read: see ``Key.kcv``; AES by CMAC made of two ECB calls."""
        answer = self.encrypt(handle, cipher, bytes(block_size(cipher)))
        if cipher is Cipher.AES:
            doubled = int.from_bytes(answer) << 1
            subkey = doubled & (1 << 128) - 1 ^ (_R_128 if doubled >> 128 else 0)
            answer = self.encrypt(handle, cipher, subkey.to_bytes(16))
        return answer[:KCV_SIZE].hex().upper()


def new_object_id(storage_id: bytes, new: NewKey) -> bytes:
    """The CKA_ID of a new key in the list under a storage key; of a change the same whenever it is repeated.

    What a change that died left under it is then found, and destroyed: never adopted, for whoever can write to the
    token could have put it there.
    """
    if not new.change_id:
        return secrets.token_bytes(_ID_SIZE)
    parts = [storage_id, new.name.encode(), new.change_id.encode()]
    told = b"".join([len(part).to_bytes(2) + part for part in parts])
    return hashlib.sha256(b"onecard key object" + told).digest()[:_ID_SIZE]


def _capabilities(usage: KeyUsage) -> MechanismFlag:
    if usage is KeyUsage.PIN_ENCRYPTION:
        return MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    if usage in (KeyUsage.PIN_VERIFICATION_PVV, KeyUsage.PIN_VERIFICATION_IBM3624):
        return MechanismFlag.ENCRYPT
    return _ENCRYPT_AND_DERIVE


def _fixed_if_possible(make: Callable[[dict[Attribute, Any]], object]) -> None:
    """Makes an object that nobody can change afterwards, if the module has such objects."""
    try:
        make(_FIXED)
    except _TEMPLATE_REFUSALS:
        make({})
