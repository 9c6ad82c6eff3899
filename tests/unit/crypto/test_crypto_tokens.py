"""Card codes, challenges and identification codes: one spelling, no forgery."""

import pytest

from crypto.card_code import (
    CARD_CODE_CHARACTERS_MAX,
    CardCodes,
    CardCodeUse,
    issue_card_code,
    open_card_code,
)
from crypto.challenge import Challenges
from crypto.errors import (
    CardCodeInvalidError,
    ChallengeInvalidError,
    IdentificationCodeInvalidError,
    KeyNotFoundError,
    KeyUsageError,
)
from crypto.identification_code import generate_identification_code, verify_identification_code
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.token_text import decode_token, encode_token, token_digest

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KEY = Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(range(32)))
CHALLENGE_KEY = Key(Cipher.HMAC_SM3, KeyUsage.CHALLENGE, bytes(range(32)))
CODE_KEY = Key(Cipher.SM4, KeyUsage.IDENTIFICATION_CODE, bytes(range(16)))
NOW_S = 1_780_000_000


def issue(key: Key = KEY, *, version: int = 1) -> str:
    return issue_card_code(
        key, key_version=version, card_alias=b"12345678", use=CardCodeUse.PAYMENT, issued_at_s=NOW_S
    )


def challenges() -> Challenges:
    return Challenges(KeyRef("challenge", 1), {1: CHALLENGE_KEY})


def test_a_card_code_opens_as_issued_and_is_short_enough():
    text = issue()
    assert len(text) <= CARD_CODE_CHARACTERS_MAX
    code = open_card_code(KEY, text, key_version=1)
    assert (code.card_alias, code.use, code.issued_at_s) == (b"12345678", CardCodeUse.PAYMENT, NOW_S)
    assert code.issued_at_s == NOW_S


def test_two_codes_of_one_second_differ():
    assert issue() != issue()


def test_a_card_code_with_any_character_changed_is_refused():
    text = issue()
    for position, character in enumerate(text):
        for other in {ALPHABET[ALPHABET.index(character) ^ 1], "+", "=", " ", "é"}:
            with pytest.raises(CardCodeInvalidError):
                open_card_code(KEY, text[:position] + other + text[position + 1 :], key_version=1)


@pytest.mark.parametrize("spell", [lambda t: t + "=", lambda t: t[:-1], lambda t: "", lambda t: t + "\n"])
def test_a_card_code_of_another_length_is_refused(spell):
    with pytest.raises(CardCodeInvalidError):
        open_card_code(KEY, spell(issue()), key_version=1)


def test_a_card_code_of_another_key_or_version_is_refused():
    other = Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(32))
    with pytest.raises(CardCodeInvalidError, match="tag"):
        open_card_code(other, issue(), key_version=1)
    with pytest.raises(CardCodeInvalidError, match="version"):
        open_card_code(KEY, issue(), key_version=2)


def test_card_codes_of_an_older_version_open_beside_the_new():
    other = Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(32))
    codes = CardCodes(KeyRef("card-code", 2), {1: KEY, 2: other})
    assert codes.open(issue()).key_version == 1
    new = codes.issue(card_alias=bytes(8), use=CardCodeUse.INQUIRY, issued_at_s=NOW_S)
    assert codes.open(new).key_version == 2


def test_a_card_code_with_an_unknown_use_type_is_refused_though_its_tag_fits():
    codes = CardCodes(KeyRef("card-code", 1), {1: KEY})
    text = codes.issue(card_alias=bytes(8), use=9, issued_at_s=NOW_S)  # type: ignore[arg-type]
    with pytest.raises(CardCodeInvalidError, match="use type"):
        codes.open(text)


def test_card_codes_need_a_key_of_their_own_and_an_alias_of_eight_bytes():
    with pytest.raises(KeyUsageError):
        CardCodes(KeyRef("challenge", 1), {1: CHALLENGE_KEY})
    with pytest.raises(KeyUsageError):
        Challenges(KeyRef("card-code", 1), {1: KEY})
    with pytest.raises(KeyNotFoundError):
        CardCodes(KeyRef("card-code", 2), {1: KEY})
    with pytest.raises(KeyNotFoundError):
        Challenges(KeyRef("challenge", 300), {300: CHALLENGE_KEY})
    with pytest.raises(ValueError, match="8 bytes"):
        issue_card_code(KEY, key_version=1, card_alias=b"", use=CardCodeUse.OTHER, issued_at_s=NOW_S)


def test_a_token_has_one_spelling_only():
    for size in (37, 38, 39):
        text = encode_token(bytes(size))
        spellings = {text[:-1] + character for character in ALPHABET}
        accepted = []
        for spelling in spellings:
            try:
                accepted.append(decode_token(spelling, size=size))
            except ValueError:
                continue
        assert len(set(accepted)) == len(accepted)
    with pytest.raises(ValueError, match="canonically"):
        decode_token("++++", size=3)


def test_the_token_digest_tells_tokens_apart():
    one, two = issue(), issue()
    assert len(token_digest(one)) == 16
    assert token_digest(one) == token_digest(one) != token_digest(two)
    assert len(token_digest("\ud800")) == 16


def test_a_challenge_opens_for_its_participant_only():
    issued = challenges().issue(participant="bank-a", issued_at_s=NOW_S)
    assert challenges().open(issued.token, participant="bank-a") == issued.challenge
    assert issued.challenge.issued_at_s == NOW_S
    for other in ("bank-b", "", "bank-aa"):
        with pytest.raises(ChallengeInvalidError, match="tag"):
            challenges().open(issued.token, participant=other)


def test_a_challenge_with_any_character_changed_is_refused():
    token = challenges().issue(participant="bank-a", issued_at_s=NOW_S).token
    for position, character in enumerate(token):
        other = ALPHABET[ALPHABET.index(character) ^ 1]
        with pytest.raises(ChallengeInvalidError):
            challenges().open(token[:position] + other + token[position + 1 :], participant="bank-a")
    for cut in (token[:-1], token + "A", ""):
        with pytest.raises(ChallengeInvalidError):
            challenges().open(cut, participant="bank-a")


def test_challenges_are_fresh():
    made = challenges()
    one, two = (made.issue(participant="bank-a", issued_at_s=NOW_S).challenge for _ in range(2))
    assert one.process_factor != two.process_factor
    assert one.original_data != two.original_data


def test_an_identification_code_verifies_as_generated_in_either_case():
    code = generate_identification_code(CODE_KEY, issuing_region="360100", chip_serial=b"\x00\xbf\x7c\x7a")
    assert code.startswith("360100D15600000500BF7C7A")
    verify_identification_code(CODE_KEY, code)
    verify_identification_code(CODE_KEY, code.lower())


def test_an_identification_code_with_any_digit_changed_is_refused():
    code = generate_identification_code(CODE_KEY, issuing_region="360100", chip_serial=bytes(4))
    for position, digit in enumerate(code):
        wrong = code[:position] + f"{int(digit, 16) ^ 1:X}" + code[position + 1 :]
        with pytest.raises(IdentificationCodeInvalidError, match="check value"):
            verify_identification_code(CODE_KEY, wrong)
    for malformed in (code[:-1], code + "0", code[:-1] + "G", code[:-2] + "  ", code[:-1] + "１"):
        with pytest.raises(IdentificationCodeInvalidError, match="32 hex"):
            verify_identification_code(CODE_KEY, malformed)


@pytest.mark.parametrize(("region", "serial"), [("36010", bytes(4)), ("36010A", bytes(4)), ("360100", b"")])
def test_malformed_parts_of_an_identification_code_are_refused(region, serial):
    with pytest.raises(ValueError, match="six digits"):
        generate_identification_code(CODE_KEY, issuing_region=region, chip_serial=serial)
