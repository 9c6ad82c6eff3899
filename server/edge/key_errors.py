"""From what the key store refuses to what callers are told: one table."""

from typing import NamedTuple

from crypto.dukpt_tdes import KsnError
from crypto.errors import (
    CryptoError,
    KeyNotFoundError,
    KeyStateError,
    KeyStoreError,
    KeyUsageError,
    PinBlockInvalidError,
    PinTranslationRefusedError,
)
from crypto.message_mac import PaddingError
from server.errors import MalformedFieldError, NotFoundError, OneCardError, StateConflictError
from server.key_calls import key_store_unavailable


class RefusedFields(NamedTuple):
    """Which field of a request a refusal is about: the key, the PIN, or something else that was asked for."""

    key: str
    pin: str = ""
    value: str = ""


def operating_error(error: CryptoError | ValueError, fields: RefusedFields) -> OneCardError:
    """The operating error for a refusal."""
    match error:
        case KeyStoreError():
            return key_store_unavailable()
        case KeyNotFoundError():
            return NotFoundError("KEY_UNKNOWN", "there is no such key", field=fields.key)
        case KeyUsageError():
            return StateConflictError("KEY_USAGE", "the key is for something else", field=fields.key)
        case KeyStateError():
            return StateConflictError("KEY_STATE", "the key may not do this in its state", field=fields.key)
        case PinTranslationRefusedError():
            return StateConflictError(
                "PIN_FORMAT_WEAKER", "a PIN is not translated to this format", field="target_format"
            )
        case PinBlockInvalidError():
            return MalformedFieldError(
                fields.pin, "the PIN block does not decode", reason="PIN_BLOCK_INVALID"
            )
        case KsnError():
            return MalformedFieldError(
                f"{fields.pin}.ksn".lstrip("."), "is no key serial number of such a key"
            )
        case PaddingError():
            return MalformedFieldError("padding", "is no choice of this key's algorithm")
    return MalformedFieldError(fields.value, "is out of its bounds")
