"""Key block headers: codes as published, lengths as told, filling only where it belongs."""

import pytest

from crypto.key_block_header import USAGE_CODES, HeaderError, parse_header


def test_codes_of_the_standard_mean_what_the_standard_says():
    codes = {usage_code.code: usage.name for usage, usage_code in USAGE_CODES.items()}
    assert {code: name for code, name in codes.items() if code[0].isalpha()} == {
        "B0": "BDK",
        "B1": "DUKPT_INITIAL",
        "C0": "CARD_VERIFICATION",
        "D0": "DATA_ENCRYPTION",
        "E0": "IMK_AC",
        "E1": "IMK_SMC",
        "E2": "IMK_SMI",
        "K1": "KEY_BLOCK_PROTECTION",
        "M1": "MAC_ALGORITHM_1",
        "M3": "MAC_ALGORITHM_3",
        "M6": "MAC_CMAC",
        "P0": "PIN_ENCRYPTION",
        "V1": "PIN_VERIFICATION_IBM3624",
        "V2": "PIN_VERIFICATION_PVV",
    }


def test_a_header_whose_length_or_alignment_is_wrong_does_not_parse():
    assert parse_header("D0020P0TB00E0100KS04", alignment=4)[1] == 20
    with pytest.raises(HeaderError, match="whole blocks"):
        parse_header("D0020P0TB00E0100KS04", alignment=16)
    for wrong in (
        "D0021P0TB00E0100KS04",
        "D0020P0TB00E0100KS03",
        "D0020P0TB00E0100KS05",
        "D0020P0TB00E0101KS04",
    ):
        with pytest.raises(HeaderError):
            parse_header(wrong, alignment=4)
    # Filling anywhere but at the end would hide what follows it.
    assert parse_header("D0024P0TB00E0200KS04PB04", alignment=8)[0].optional_blocks == (("KS", ""),)
    with pytest.raises(HeaderError, match="filling"):
        parse_header("D0024P0TB00E0200PB04KS04", alignment=8)
