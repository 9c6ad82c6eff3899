"""What a key may be: its name, usage, algorithm and length, checked field by field. Pure, like the rules."""

import re
from dataclasses import dataclass

from crypto.errors import KeyUsageError
from crypto.key_store.lifecycle import NAME_CHARACTERS_MAX
from crypto.keys import Cipher, Exportability, Key, KeyUsage, UdkOption
from server.errors import MalformedFieldError

COMPONENT_COUNTS = (2, 3)

# Derived from other keys for one card, session or terminal, or the key store's own: never stored by an operator.
NOT_ADMINISTERED = frozenset(
    {
        KeyUsage.UDK_AC,
        KeyUsage.UDK_SMI,
        KeyUsage.UDK_SMC,
        KeyUsage.SESSION_AC,
        KeyUsage.SESSION_SMI,
        KeyUsage.SESSION_SMC,
        KeyUsage.SS_AUTHENTICATION_CARD,
        KeyUsage.DUKPT_INITIAL,
        KeyUsage.MESSAGE_MAC,
        KeyUsage.STORAGE,
    }
)
ISSUER_MASTER_KEYS = frozenset({KeyUsage.IMK_AC, KeyUsage.IMK_SMI, KeyUsage.IMK_SMC})
# Usages whose algorithm is defined for one cipher; all others take every cipher that ``Key`` admits.
_ONE_CIPHER = {
    KeyUsage.CARD_VERIFICATION: Cipher.TDES,
    KeyUsage.MAC_ALGORITHM_3: Cipher.TDES,
    KeyUsage.SEALING: Cipher.SM4,
}
_DEFAULT_BYTES = {Cipher.SM4: 16, Cipher.TDES: 16, Cipher.AES: 16, Cipher.HMAC_SM3: 32}
_NEW_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_NAME = re.compile(r"[a-z0-9-]{1,48}", re.ASCII)
_KCV = re.compile(r"[0-9A-F]{6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """A key as a request names it; version 0 is the active one."""

    name: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What a key version is to be; ``size`` in bytes."""

    usage: KeyUsage
    cipher: Cipher
    size: int
    exportability: Exportability
    udk_option: UdkOption


def new_name(path: str, name: str) -> str:
    """Name of a key to make: lower-case words with hyphens.

    Raises:
        MalformedFieldError: other characters, or too long.
    """
    if len(name) > NAME_CHARACTERS_MAX or not _NEW_NAME.fullmatch(name):
        raise MalformedFieldError(
            path, "must be 1 to 48 of a-z, 0-9 and hyphen: words that begin with a letter"
        )
    return name


def name(path: str, text: str) -> str:
    """Name of a key that may be there.

    Raises:
        MalformedFieldError: other characters, or too long.
    """
    if not _NAME.fullmatch(text):
        raise MalformedFieldError(path, "must be 1 to 48 of a-z, 0-9 and hyphen")
    return text


def check_value(path: str, text: str) -> str:
    """Six hexadecimal digits, upper case.

    Raises:
        MalformedFieldError: anything else.
    """
    if not _KCV.fullmatch(text.upper()):
        raise MalformedFieldError(path, "must be six hexadecimal digits")
    return text.upper()


def new_version(
    path: str,
    *,
    usage: str,
    cipher: Cipher,
    size: int,
    exportability: Exportability,
    udk_option: UdkOption | None,
) -> NewVersion:
    """What a key is to be, if it can be one.

    Raises:
        MalformedFieldError: unknown usage, or usage, cipher, size and option do not go together.
    """
    administered = {usage.value: usage for usage in KeyUsage if usage not in NOT_ADMINISTERED}
    if usage not in administered:
        raise MalformedFieldError(f"{path}.usage", "must be the usage of a master or working key")
    kind = administered[usage]
    try:
        Key(cipher, kind, bytes(_DEFAULT_BYTES[cipher]))
        fits = _ONE_CIPHER.get(kind, cipher) is cipher
    except KeyUsageError:
        fits = False
    if not fits:
        raise MalformedFieldError(f"{path}.cipher", "does not go with the usage")
    size = size or _DEFAULT_BYTES[cipher]
    if size not in ((16, 24, 32) if cipher is Cipher.AES else (_DEFAULT_BYTES[cipher],)):
        raise MalformedFieldError(f"{path}.key_bytes", "is no length of this algorithm")
    return NewVersion(
        usage=kind,
        cipher=cipher,
        size=size,
        exportability=exportability,
        udk_option=udk_option_of(f"{path}.card_key_option", kind, udk_option),
    )


def udk_option_of(path: str, usage: KeyUsage, option: UdkOption | None) -> UdkOption:
    """
    Raises:
        MalformedFieldError: an option for a key that derives no card keys.
    """
    if option is not None and usage not in ISSUER_MASTER_KEYS:
        raise MalformedFieldError(path, "is for issuer master keys only")
    return option or UdkOption.A
