"""The identifiers of holders and cards: form, check digits, normalisation.

Pure functions. Each ``parse_*`` gives the canonical form or raises ``ValueError`` with the rule that was broken,
never with the value.
"""

import re
import unicodedata
from datetime import date

IDENTITY_NUMBER_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
IDENTITY_NUMBER_CHECKS = "10X98765432"
CARD_NUMBER_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
CARD_NUMBER_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# GB/T 2260 province codes, and the codes of residents' permits for Taiwan, Hong Kong and Macau.
PROVINCES = frozenset(
    str(code)
    for codes in (range(11, 16), range(21, 24), range(31, 38), range(41, 47), range(50, 55), range(61, 66))
    for code in codes
) | {"71", "81", "82", "83"}
JIANGXI = "36"
CITIES = {
    "360100": "南昌",
    "360200": "景德镇",
    "360300": "萍乡",
    "360400": "九江",
    "360500": "新余",
    "360600": "鹰潭",
    "360700": "赣州",
    "360800": "吉安",
    "360900": "宜春",
    "361000": "抚州",
    "361100": "上饶",
}

_PAN = re.compile(r"[0-9]{16,19}", re.ASCII)
_IDENTITY_NUMBER = re.compile(r"[0-9]{17}[0-9X]", re.ASCII)
_OLD_IDENTITY_NUMBER = re.compile(r"[0-9]{15}", re.ASCII)
_CARD_NUMBER = re.compile(r"[0-9A-Z]{9}", re.ASCII)
_IDENTIFICATION_CODE = re.compile(r"[0-9A-Fa-f]{32}", re.ASCII)
_REGION = re.compile(r"[0-9]{6}", re.ASCII)
# ASCII digit to the ASCII digit that stands for its double with the digits added.
_LUHN_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
_MIDDLE_DOTS = str.maketrans(dict.fromkeys("•‧∙⋅●・･．.゜᛫", "·"))
# A variant of a character's shape is the same character.
_VARIATION_SELECTORS = dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
_NAME_LENGTH_MAX = 64


def identity_number_check(first_17: str) -> str:
    """Check character over the first 17 digits.

    Source: GB 11643-1999; ISO 7064 MOD 11-2.
    """
    total = sum(int(digit) * weight for digit, weight in zip(first_17, IDENTITY_NUMBER_WEIGHTS, strict=True))
    return IDENTITY_NUMBER_CHECKS[total % 11]


def parse_identity_number(text: str, *, today: date) -> str:
    """Canonical 18-character number: full-width forms and lower-case x folded, 15 digits extended.

    The other four address digits are taken as they are: abolished prefectures live on in numbers.

    Raises:
        ValueError: form, province, date of birth or check character is wrong.
    Source: GB 11643-1999.
    """
    number = unicodedata.normalize("NFKC", text).strip().upper()
    if _OLD_IDENTITY_NUMBER.fullmatch(number):
        extended = number[:6] + "19" + number[6:]
        number = extended + identity_number_check(extended)
    if not _IDENTITY_NUMBER.fullmatch(number):
        raise ValueError("must be 18 characters, 17 digits and a check character, or 15 digits")
    if number[:2] not in PROVINCES:
        raise ValueError("its province is not known")
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        raise ValueError("its date of birth does not exist") from None
    if born > today:
        raise ValueError("its date of birth lies in the future")
    if identity_number_check(number[:17]) != number[17]:
        raise ValueError("its check character is wrong")
    return number


def luhn_digit(digits: str) -> str:
    """Check digit to append to ``digits``.

    Source: ISO/IEC 7812-1, annex B.
    """
    return str(-_luhn_sum(digits + "0") % 10)


def _luhn_sum(digits: str) -> int:
    # On the hot path: one translate and two sums over the bytes, a quarter of a loop's time.
    raw = digits.encode("ascii")
    return sum(raw[-1::-2]) + sum(raw[-2::-2].translate(_LUHN_DOUBLED)) - ord("0") * len(raw)


def parse_pan(text: str) -> str:
    """A bank card number of 16 to 19 digits with a valid check digit.

    Raises:
        ValueError: form or check digit is wrong.
    """
    if not _PAN.fullmatch(text):
        raise ValueError("must be 16 to 19 digits")
    if _luhn_sum(text) % 10 != 0:
        raise ValueError("its check digit is wrong")
    return text


def card_number_check(first_8: str) -> str:
    """Check character over the first 8 characters of a card number (AAZ500)."""
    total = sum(
        CARD_NUMBER_ALPHABET.index(character) * weight
        for character, weight in zip(first_8, CARD_NUMBER_WEIGHTS, strict=True)
    )
    remainder = 11 - total % 11
    return {10: "X", 11: "0"}.get(remainder, str(remainder))


def parse_card_number(text: str) -> str:
    """A card number (AAZ500) of nine characters with a valid check.

    Raises:
        ValueError: form or check character is wrong.
    """
    number = unicodedata.normalize("NFKC", text).upper()
    if not _CARD_NUMBER.fullmatch(number):
        raise ValueError("must be 9 characters out of 0-9 and A-Z")
    if card_number_check(number[:8]) != number[8]:
        raise ValueError("its check character is wrong")
    return number


def parse_identification_code(text: str) -> str:
    """A card identification code (AAZ501): 32 hexadecimal digits in upper case. Its check value is keyed.

    Raises:
        ValueError: the form is wrong.
    """
    # Before upper(): a ligature becomes two letters by it.
    if not _IDENTIFICATION_CODE.fullmatch(text):
        raise ValueError("must be 32 hexadecimal digits")
    return text.upper()


def parse_region(text: str) -> str:
    """A region code of Jiangxi (AAB301): six digits that begin with 36.

    Raises:
        ValueError: the form is wrong, or the region lies in another province.
    """
    if not _REGION.fullmatch(text):
        raise ValueError("must be six digits")
    if not text.startswith(JIANGXI):
        raise ValueError("must be a region of Jiangxi")
    return text


def normalise_name(text: str) -> str:
    """The form in which names are compared: NFKC, one middle dot, no spaces inside Chinese names, upper case.

    Raises:
        ValueError: nothing is left, it is too long, or it holds control characters.
    """
    name = unicodedata.normalize("NFKC", text.translate(_VARIATION_SELECTORS)).translate(_MIDDLE_DOTS).strip()
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in name):
        raise ValueError("must not hold control characters")
    words = name.upper().split()
    separator = " " if name.isascii() else ""
    # Once more: without the spaces, and in upper case, marks may compose that did not before.
    name = unicodedata.normalize("NFKC", separator.join(words))
    if not 1 <= len(name) <= _NAME_LENGTH_MAX:
        raise ValueError("must have 1 to 64 characters")
    return name
