"""What can go wrong in cryptography, as one tree of types; callers branch on the type, never on the text.

::

    CryptoError
    ├── KeyNotFoundError            no key of that name and version
    ├── KeyUsageError               the key exists but is for something else
    ├── KeyStateError               the key's state forbids the operation
    ├── KeyUnsoundError             a value that protects nothing: zeros, or single DES in place of 3DES
    ├── PinTranslationRefusedError  a PIN is not moved to a weaker format
    ├── SelfTestError               a known answer came out wrong: the process must not serve
    ├── KeyStoreError
    │   ├── KeyStoreExistsError     refusing to create over an existing store
    │   └── KeyStoreUnavailableError   absent, unreadable, readable by others, not written, token gone
    │       └── TokenRefusalError      the token is there and refuses: told as if it were gone
    └── VerificationError
        ├── CryptogramInvalidError
        ├── MacInvalidError
        ├── InternalAuthenticationInvalidError
        ├── CardCodeInvalidError
        ├── ChallengeInvalidError
        ├── IdentificationCodeInvalidError
        ├── CardVerificationInvalidError
        ├── PinInvalidError         a PIN does not fit its reference
        ├── PinBlockInvalidError    a PIN block does not decode: wrong key, wrong card or wrong format
        ├── KeyBlockInvalidError    a key block is malformed or its authentication fails
        ├── KeyComponentInvalidError   a component does not fit its check value, or components make no key
        └── SealBrokenError         sealed column or key file changed, moved, or under another key

Arguments of the wrong shape raise ``ValueError``: the boundary checks shapes before it calls. No message ever
carries a key, a PIN, a card number or a token.
"""


class CryptoError(Exception):
    """Any refusal of this package."""


class KeyNotFoundError(CryptoError):
    """The key store holds no key of that name and version."""


class KeyUsageError(CryptoError):
    """A key has one usage; this operation asks for another."""


class KeyStateError(CryptoError):
    """The key's state forbids the operation."""


class KeyUnsoundError(CryptoError):
    """The value protects nothing: zeros only, or single DES in the place of 3DES."""


class PinTranslationRefusedError(CryptoError):
    """A PIN may not be moved between these two formats."""


class SelfTestError(CryptoError):
    """A known answer came out wrong."""


class KeyStoreError(CryptoError):
    """The key store as a whole cannot do what was asked."""


class KeyStoreExistsError(KeyStoreError):
    """The directory already holds a key store."""


class KeyStoreUnavailableError(KeyStoreError):
    """The key store is absent, unreadable, not safe to read, or not written."""


class TokenRefusalError(KeyStoreUnavailableError):
    """The token is there and refuses this one thing: nothing is known of what was asked, so the whole call fails.

    ``is_without_key``: what it refuses is a key that it does not have, or has with another check value.
    """

    def __init__(self, message: str, *, is_without_key: bool = False) -> None:
        super().__init__(message)
        self.is_without_key = is_without_key


class VerificationError(CryptoError):
    """Something that claims to be authentic is not."""


class CryptogramInvalidError(VerificationError):
    """The application cryptogram is not the card's."""


class MacInvalidError(VerificationError):
    """The message authentication code does not fit the message."""


class InternalAuthenticationInvalidError(VerificationError):
    """The answer to INTERNAL AUTHENTICATE is not the card's."""


class CardCodeInvalidError(VerificationError):
    """The QR token is malformed or not ours."""


class ChallengeInvalidError(VerificationError):
    """The challenge token is malformed, not ours, or another participant's."""


class IdentificationCodeInvalidError(VerificationError):
    """The card identification code is malformed or its check value is wrong."""


class CardVerificationInvalidError(VerificationError):
    """The card verification value is not the card's."""


class PinInvalidError(VerificationError):
    """The PIN does not fit its reference."""


class PinBlockInvalidError(VerificationError):
    """The PIN block does not decode: wrong key, wrong card, wrong format, or changed."""


class KeyBlockInvalidError(VerificationError):
    """The key block is malformed, or its authentication fails."""


class KeyComponentInvalidError(VerificationError):
    """A component does not fit its check value, or components together are no key."""


class SealBrokenError(VerificationError):
    """Sealed data was changed, moved to another place, or sealed under another key."""


# What is wrong with one key, and tells nothing of the others.
KEY_REFUSALS = (KeyNotFoundError, KeyUsageError, KeyStateError)
