"""Identifiers by the standards' own examples, by every single changed character, and by the spellings people use."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cards.identifiers import (
    CARD_NUMBER_ALPHABET,
    luhn_digit,
    normalise_name,
    parse_card_number,
    parse_identification_code,
    parse_identity_number,
    parse_pan,
    parse_region,
)
from server.cards.synthetic import (
    synthetic_identity_number,
    synthetic_name,
    synthetic_pan,
)

TODAY = date(2026, 11, 23)
IDENTITY_NUMBERS = (
    "11010519491231002X",
    "440524188001010014",
    "360102199003070014",
    "360702200002290021",
    "36112119851231123X",
    "360429197001010007",
)
CARD_NUMBERS = ("X00000019", "360000012", "A00000003", "360100005")
PANS = ("6217000010012345677", "6228480012345678903", "6216691234567890129")


def identity_number(text: str) -> str:
    return parse_identity_number(text, today=TODAY)


@pytest.mark.parametrize("number", IDENTITY_NUMBERS)
def test_identity_numbers_of_the_standard_are_accepted(number: str) -> None:
    assert identity_number(number) == number


@pytest.mark.parametrize("number", IDENTITY_NUMBERS)
def test_identity_number_with_one_changed_character_is_refused(number: str) -> None:
    for position, original in enumerate(number):
        for other in "0123456789X":
            if other != original:
                with pytest.raises(ValueError, match=r"must be|its "):
                    identity_number(number[:position] + other + number[position + 1 :])


@pytest.mark.parametrize("number", IDENTITY_NUMBERS)
def test_identity_number_with_two_neighbours_exchanged_is_refused(number: str) -> None:
    for position in range(17):
        left, right = number[position], number[position + 1]
        if left != right:
            with pytest.raises(ValueError, match=r"must be|its "):
                identity_number(number[:position] + right + left + number[position + 2 :])


@pytest.mark.parametrize(
    "spelling",
    [
        "11010519491231002x",
        "１１０１０５１９４９１２３１００２Ｘ",
        "１１０１０５１９４９１２３１００２ｘ",
        " 11010519491231002X ",
        "\u300011010519491231002X",
    ],
)
def test_spellings_of_an_identity_number_become_one(spelling: str) -> None:
    assert identity_number(spelling) == "11010519491231002X"


def test_old_identity_number_of_15_digits_becomes_the_new_one() -> None:
    assert identity_number("110105491231002") == "11010519491231002X"
    assert identity_number("360429700101000") == "360429197001010007"
    assert identity_number("３６０４２９７００１０１０００") == "360429197001010007"


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        ("36010219900307001", "must be 18"),
        ("3601021990030700144", "must be 18"),
        ("36010219900307001Y", "must be 18"),
        ("X60102199003070014", "must be 18"),
        ("990102199003070014", "province"),
        ("360102199002300014", "date of birth does not exist"),
        ("360702200102290021", "date of birth does not exist"),
        ("360102202611240014", "lies in the future"),
        ("36010219900307001X", "check character"),
        ("360102900230001", "date of birth does not exist"),
    ],
)
def test_identity_number_is_refused_by_the_rule_it_breaks(number: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as refused:
        identity_number(number)
    assert number not in str(refused.value)


def test_holder_born_today_has_an_identity_number() -> None:
    born_today = next(
        f"36010220261123001{check}" for check in "0123456789X" if _is_valid(f"36010220261123001{check}")
    )
    assert identity_number(born_today) == born_today


def _is_valid(number: str) -> bool:
    try:
        identity_number(number)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("province", ["36", "81", "82", "83", "71", "11"])
def test_abolished_districts_and_residents_permits_are_accepted(province: str) -> None:
    assert any(_is_valid(f"{province}212119851231123{check}") for check in "0123456789X")


@pytest.mark.parametrize("number", CARD_NUMBERS)
def test_card_numbers_of_the_standard_are_accepted(number: str) -> None:
    assert parse_card_number(number) == number
    assert parse_card_number(number.lower()) == number


@pytest.mark.parametrize("number", CARD_NUMBERS)
def test_card_number_with_one_changed_character_is_refused(number: str) -> None:
    """Weights modulo 11 cannot tell characters whose values differ by 11: 0, B and M are one to the check."""
    for position, original in enumerate(number):
        for other in CARD_NUMBER_ALPHABET:
            values = CARD_NUMBER_ALPHABET.index(other), CARD_NUMBER_ALPHABET.index(original)
            if other == original or (position < 8 and (values[0] - values[1]) % 11 == 0):
                continue
            with pytest.raises(ValueError, match="check"):
                parse_card_number(number[:position] + other + number[position + 1 :])


@pytest.mark.parametrize("number", ["", "36000001", "3600000122", "36000001*", "卡60000012"])
def test_card_number_of_another_form_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="must be 9"):
        parse_card_number(number)


@pytest.mark.parametrize("pan", PANS)
def test_pans_of_all_lengths_are_accepted(pan: str) -> None:
    assert parse_pan(pan) == pan
    assert luhn_digit(pan[:-1]) == pan[-1]


@pytest.mark.parametrize("pan", PANS)
def test_pan_with_one_changed_digit_is_refused(pan: str) -> None:
    for position, original in enumerate(pan):
        for other in "0123456789":
            if other != original:
                with pytest.raises(ValueError, match="check digit"):
                    parse_pan(pan[:position] + other + pan[position + 1 :])


@given(st.text(alphabet="0123456789", min_size=15, max_size=18))
def test_luhn_digit_agrees_with_the_digit_by_digit_definition(digits: str) -> None:
    total = 0
    for place, digit in enumerate(reversed(digits + luhn_digit(digits))):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    assert total % 10 == 0


@pytest.mark.parametrize(
    "text", ["", "6217", "６２１７０00010012345677", "6217000010012345677\n", "62170000100123456771"]
)
def test_pan_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_pan(text)


def test_identification_code_is_folded_to_upper_case() -> None:
    code = "639900D15600000500BF7C7A48FB4966"
    assert parse_identification_code(code.lower()) == code
    for wrong in (code[:-1], code + "0", code[:-1] + "G", "０" + code[1:], code[:-2] + "\ufb00"):
        with pytest.raises(ValueError, match="must be 32"):
            parse_identification_code(wrong)


def test_region_must_be_of_jiangxi() -> None:
    assert parse_region("360102") == "360102"
    for wrong in ("", "36010", "440100", "3601000", "３６0100"):
        with pytest.raises(ValueError, match="must be"):
            parse_region(wrong)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        *((f"阿卜杜{dot}克里木", "阿卜杜·克里木") for dot in "·•‧∙⋅●・･．.᛫\u0387"),
        ("阿卜杜 · 克里木", "阿卜杜·克里木"),
        (" 张 三 ", "张三"),
        ("张\u3000三", "张三"),
        ("ｚｈａｎｇ　ｓａｎ", "ZHANG SAN"),
        ("Zhang  San", "ZHANG SAN"),
        ("㐂", "㐂"),
        ("\U00020b9f家辉", "\U00020b9f家辉"),
        ("\uf92e", "冷"),
        ("李\ufe00", "李"),
        ("葛\U000e0100", "葛"),
    ],
)
def test_spellings_of_a_name_become_one(spelling: str, name: str) -> None:
    assert normalise_name(spelling) == name


@given(st.text(max_size=70))
def test_normalised_name_is_its_own_normal_form(text: str) -> None:
    try:
        name = normalise_name(text)
    except ValueError:
        return
    assert normalise_name(name) == name


@pytest.mark.parametrize(
    "text", ["", "  ", "\u3000", "王" * 65, "王\x00伟", "王\u200b伟", "王\u202e伟", "王\ud800"]
)
def test_name_of_nothing_too_long_or_with_controls_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        normalise_name(text)


def test_synthetic_holders_differ_and_pass_every_check() -> None:
    numbers = [*range(3_000), *range(200_000_000, 200_000_500)]
    assert len({synthetic_identity_number(n) for n in numbers}) == len(numbers)
    for n in numbers:
        assert identity_number(synthetic_identity_number(n))
        assert parse_pan(synthetic_pan(n))
        assert normalise_name(synthetic_name(n)) == synthetic_name(n)
