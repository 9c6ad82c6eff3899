"""What a key block says about its key in clear, and which of those sayings may stand together.

One table joins each usage of ours to its code and the modes of use it allows; another the ciphers to theirs. Must
never see a key, and never be believed before the block's MAC was checked: ``crypto.key_block`` does that.
"""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crypto.keys import Cipher, Exportability, KeyUsage

HEADER_SIZE = 16
BLOCK_SIZE_MAX = 9999
OPTIONAL_BLOCKS_MAX = 99
PADDING_BLOCK = "PB"

_HEADER = re.compile(
    r"(?P<version>[A-Z])(?P<size>[0-9]{4})(?P<usage>[A-Z0-9]{2})(?P<algorithm>[A-Z0-9])(?P<mode>[A-Z0-9])"
    r"(?P<key_version>[A-Za-z0-9]{2})(?P<exportability>[ENS])(?P<count>[0-9]{2})00"
)
_KEY_VERSION = re.compile(r"[A-Za-z0-9]{2}")
_OPTIONAL_ID = re.compile(r"[A-Za-z0-9]{2}")
_SIZE = re.compile(r"[0-9A-F]{2}")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


class KeyBlockVersion(enum.Enum):
    """How a key block is bound.

    S is a profile of this project: the construction of D with SM4. No standard uses the letter, no reader of a
    standard accepts it, its protection keys are SM4 keys and come out of derivation data that no standard version
    has: renamed to B or D, a block fails its MAC.
    """

    B = "B"
    D = "D"
    S = "S"


class UsageCode(NamedTuple):
    """A usage's two characters, and the modes of use that go with it; the first allows all that the usage does."""

    code: str
    modes: tuple[str, ...]


_DERIVE = ("X",)
_MAC = ("C", "G", "V")
_CIPHER = ("B", "D", "E")

# Letters first: TR-31:2018 and X9.143-2021 table 2. Digits first: the standard leaves them to proprietary use, the
# values are a profile of this project. A working key lives for one transaction and has no code.
USAGE_CODES = {
    KeyUsage.BDK: UsageCode("B0", _DERIVE),
    KeyUsage.DUKPT_INITIAL: UsageCode("B1", _DERIVE),
    KeyUsage.CARD_VERIFICATION: UsageCode("C0", _MAC),
    KeyUsage.DATA_ENCRYPTION: UsageCode("D0", _CIPHER),
    KeyUsage.IMK_AC: UsageCode("E0", _DERIVE),
    KeyUsage.IMK_SMC: UsageCode("E1", _DERIVE),
    KeyUsage.IMK_SMI: UsageCode("E2", _DERIVE),
    KeyUsage.KEY_BLOCK_PROTECTION: UsageCode("K1", _CIPHER),
    KeyUsage.MAC_ALGORITHM_1: UsageCode("M1", _MAC),
    KeyUsage.MAC_ALGORITHM_3: UsageCode("M3", _MAC),
    KeyUsage.MAC_CMAC: UsageCode("M6", _MAC),
    KeyUsage.PIN_ENCRYPTION: UsageCode("P0", _CIPHER),
    KeyUsage.PIN_VERIFICATION_IBM3624: UsageCode("V1", _MAC),
    KeyUsage.PIN_VERIFICATION_PVV: UsageCode("V2", _MAC),
    KeyUsage.MAC_UNIONPAY: UsageCode("10", _MAC),
    # Not M7: the standard's HMAC names its hash in an optional block, and SM3 has no number there.
    KeyUsage.MAC_HMAC_SM3: UsageCode("11", _MAC),
    KeyUsage.SS_AUTHENTICATION_NATIONAL: UsageCode("20", _DERIVE),
    KeyUsage.SS_AUTHENTICATION_PROVINCE: UsageCode("21", _DERIVE),
    KeyUsage.SS_AUTHENTICATION_CITY: UsageCode("22", _DERIVE),
    KeyUsage.SS_AUTHENTICATION_CARD: UsageCode("23", _MAC),
    KeyUsage.UDK_AC: UsageCode("30", _DERIVE),
    KeyUsage.UDK_SMI: UsageCode("31", _DERIVE),
    KeyUsage.UDK_SMC: UsageCode("32", _DERIVE),
    KeyUsage.SEALING: UsageCode("40", _CIPHER),
    KeyUsage.STORAGE: UsageCode("41", _CIPHER),
    KeyUsage.BLIND_INDEX: UsageCode("42", _MAC),
    KeyUsage.CARD_CODE: UsageCode("43", _MAC),
    KeyUsage.CHALLENGE: UsageCode("44", _MAC),
    KeyUsage.REQUEST_DIGEST: UsageCode("45", _MAC),
    KeyUsage.IDENTIFICATION_CODE: UsageCode("46", _MAC),
}
_USAGES = {usage_code.code: usage for usage, usage_code in USAGE_CODES.items()}
# K0, any key that wraps keys: read as a protection key, never written.
_USAGES["K0"] = KeyUsage.KEY_BLOCK_PROTECTION

# Digits are left to proprietary use: 3 and 4 are a profile of this project.
ALGORITHM_CODES = {Cipher.TDES: "T", Cipher.AES: "A", Cipher.HMAC_SM3: "3", Cipher.SM4: "4"}
_CIPHERS = {code: cipher for cipher, code in ALGORITHM_CODES.items()}


class HeaderError(ValueError):
    """The header does not parse, or two of its fields do not go together. Its text is for nobody outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlockHeader:
    """The fields of a key block's header.

    Args:
        version: how the block is bound.
        usage_code: two characters, see ``USAGE_CODES``.
        algorithm: one character, see ``ALGORITHM_CODES``.
        mode_of_use: one character: X derives, B/D/E both/decrypts/encrypts, C/G/V both/generates/verifies. A key
            does not carry it: see ``crypto.key_block.unwrap_key``.
        key_version: two letters or digits, "00" when the key's versions are not counted.
        exportability: what the receiver may do with the key.
        optional_blocks: (two-character id, printable ASCII) pairs, kept as they came, without the padding block.
    Raises:
        HeaderError: a field is out of its shape.
    """

    version: KeyBlockVersion
    usage_code: str
    algorithm: str
    mode_of_use: str
    key_version: str = "00"
    exportability: Exportability = Exportability.NON_EXPORTABLE
    optional_blocks: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not _KEY_VERSION.fullmatch(self.key_version):
            raise HeaderError("a key version has two letters or digits")
        names = [name for name, _ in self.optional_blocks]
        if len(set(names)) != len(names) or PADDING_BLOCK in names or len(names) >= OPTIONAL_BLOCKS_MAX:
            raise HeaderError("optional blocks are repeated, reserved or too many")
        for name, text in self.optional_blocks:
            if not _OPTIONAL_ID.fullmatch(name) or not _PRINTABLE.fullmatch(text):
                raise HeaderError("an optional block is out of its shape")

    def usage(self) -> KeyUsage:
        """The usage of ours that the header names.

        Raises:
            HeaderError: no such usage here, or the mode of use does not go with it.
        """
        usage = _USAGES.get(self.usage_code)
        if usage is None or self.mode_of_use not in USAGE_CODES[usage].modes:
            raise HeaderError("no such usage, or its mode of use does not go with it")
        return usage

    def cipher(self) -> Cipher:
        """The cipher of ours that the header names.

        Raises:
            HeaderError: no such algorithm here.
        """
        try:
            return _CIPHERS[self.algorithm]
        except KeyError:
            raise HeaderError("no such algorithm") from None

    def encode(self, *, alignment: int, body_size: int) -> str:
        """The header as text, optional blocks filled to ``alignment``.

        Args:
            alignment: block size of the protecting cipher, characters.
            body_size: characters that follow the header.
        Raises:
            HeaderError: the block would be longer than 9999 characters.
        Source: TR-31:2018 A.2, A.5.6; X9.143-2021 clause 6.
        """
        encoded = [_encode_optional(name, text) for name, text in self.optional_blocks]
        missing = -sum(map(len, encoded)) % alignment
        if missing:
            # At least one character of filling, as public readers expect of it.
            filling = (missing - 5) % alignment + 1
            encoded.append(_encode_optional(PADDING_BLOCK, "0" * filling))
        options = "".join(encoded)
        size = HEADER_SIZE + len(options) + body_size
        if size > BLOCK_SIZE_MAX:
            raise HeaderError("a key block has at most 9999 characters")
        return (
            f"{self.version.value}{size:04d}{self.usage_code}{self.algorithm}{self.mode_of_use}"
            f"{self.key_version}{self.exportability.value}{len(encoded):02d}00{options}"
        )


def parse_header(block: str, *, alignment: int) -> tuple[KeyBlockHeader, int]:
    """Reads a whole key block's header.

    Args:
        block: the whole key block.
        alignment: block size of the protecting cipher, characters.
    Returns:
        The header, and how many characters of ``block`` it takes.
    Raises:
        HeaderError: malformed; or the length it tells is not the block's.
    Source: TR-31:2018 A.2, A.5.6; X9.143-2021 clause 6. Stricter here: lengths in upper-case hex, no optional
        block twice, the reserved field "00", filling only at the end.
    """
    fields = _HEADER.match(block)
    if fields is None or int(fields["size"]) != len(block):
        raise HeaderError("malformed header")
    optional_blocks, size = _parse_optional(block, count=int(fields["count"]))
    if size % alignment:
        raise HeaderError("the header does not fill whole blocks")
    try:
        version = KeyBlockVersion(fields["version"])
    except ValueError:
        raise HeaderError("no such version") from None
    header = KeyBlockHeader(
        version=version,
        usage_code=fields["usage"],
        algorithm=fields["algorithm"],
        mode_of_use=fields["mode"],
        key_version=fields["key_version"],
        exportability=Exportability(fields["exportability"]),
        optional_blocks=tuple(optional_blocks),
    )
    return header, size


def _encode_optional(name: str, text: str) -> str:
    if len(text) + 4 <= 0xFF:
        return f"{name}{len(text) + 4:02X}{text}"
    if len(text) + 10 > BLOCK_SIZE_MAX:
        raise HeaderError("an optional block is too long")
    # Length 00, then the number of length bytes, then the length.
    return f"{name}0002{len(text) + 10:04X}{text}"


def _parse_optional(block: str, *, count: int) -> tuple[Sequence[tuple[str, str]], int]:
    """The optional blocks without their filling, and where they end."""
    optional_blocks: list[tuple[str, str]] = []
    start = HEADER_SIZE
    for number in range(count):
        head, size = 4, _hex_number(block[start + 2 : start + 4])
        if size == 0:
            if block[start + 4 : start + 6] != "02":
                raise HeaderError("malformed optional block")
            head, size = (
                10,
                _hex_number(block[start + 6 : start + 8]) << 8 | _hex_number(block[start + 8 : start + 10]),
            )
        end = start + size
        if size < head or end > len(block):
            raise HeaderError("malformed optional block")
        name, text = block[start : start + 2], block[start + head : end]
        if name != PADDING_BLOCK:
            optional_blocks.append((name, text))
        elif number != count - 1 or not _PRINTABLE.fullmatch(text):
            raise HeaderError("filling is not at the end")
        start = end
    return optional_blocks, start


def _hex_number(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise HeaderError("malformed optional block")
    return int(text, 16)
