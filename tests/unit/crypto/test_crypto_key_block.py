"""Key blocks: published answers, round trips, and everything that must not come out of one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import key_block
from crypto.errors import KeyBlockInvalidError, KeyUsageError
from crypto.key_block import unwrap_key, wrap_key
from crypto.key_block_header import USAGE_CODES, KeyBlockHeader, KeyBlockVersion
from crypto.keys import Cipher, Exportability, Key, KeyUsage

VALUE = bytes(range(1, 33))
EXPORTABLE = Exportability.EXPORTABLE


def kbpk(cipher: Cipher, size: int = 16, *, first: int = 0x80) -> Key:
    return Key(cipher, KeyUsage.KEY_BLOCK_PROTECTION, bytes(range(first, first + size)))


KBPKS = {
    "B": kbpk(Cipher.TDES),
    "D-128": kbpk(Cipher.AES, 16),
    "D-192": kbpk(Cipher.AES, 24),
    "D-256": kbpk(Cipher.AES, 32),
    "S": kbpk(Cipher.SM4),
}
EVERY_KBPK = pytest.mark.parametrize("name", KBPKS)
PIN_KEY = Key(Cipher.TDES, KeyUsage.PIN_ENCRYPTION, VALUE[:16])


def key_of(usage: KeyUsage) -> Key:
    for cipher, size in ((Cipher.TDES, 16), (Cipher.HMAC_SM3, 32)):
        try:
            return Key(cipher, usage, VALUE[:size])
        except KeyUsageError:
            continue
    raise AssertionError(usage)


def wrap(protection: Key, key: Key = PIN_KEY, **options: object) -> str:
    return wrap_key(protection, key, **{"exportability": EXPORTABLE, **options})


def forge(protection: Key, value: bytes = VALUE[:16], **fields: object) -> str:
    """An authentic block that ``wrap_key`` would refuse to write."""
    plain = {"version": KeyBlockVersion.D, "usage_code": "P0", "algorithm": "T", "mode_of_use": "B"}
    return key_block._bind(protection, KeyBlockHeader(**{**plain, **fields}), value, filled_size=32)


@pytest.mark.parametrize(
    ("name", "cipher"), [("tr-31 version B", Cipher.TDES), ("tr-31 version D", Cipher.AES)]
)
def test_published_key_blocks_open(vectors, name, cipher):
    v = vectors[name]
    protection = Key(cipher, KeyUsage.KEY_BLOCK_PROTECTION, bytes.fromhex(v["kbpk"]))
    header, key = unwrap_key(protection, v["block"], narrower_modes="E")
    assert key == Key(cipher, KeyUsage.PIN_ENCRYPTION, bytes.fromhex(v["key"]))
    assert (header.mode_of_use, header.key_version, header.exportability) == ("E", "00", EXPORTABLE)


def test_the_known_block_under_sm4_opens(vectors):
    v = vectors["key block version S"]
    protection = Key(Cipher.SM4, KeyUsage.KEY_BLOCK_PROTECTION, bytes.fromhex(v["kbpk"]))
    header, key = unwrap_key(protection, v["block"])
    assert key == Key(Cipher.SM4, KeyUsage.IMK_AC, bytes.fromhex(v["key"]))
    assert (header.version, header.mode_of_use) == (KeyBlockVersion.S, "X")


@pytest.mark.parametrize(("size", "head"), [(0, "KS04"), (251, "KSFF"), (252, "KS00020106")])
def test_a_long_optional_block_has_a_long_length(size, head):
    block = wrap(KBPKS["B"], optional_blocks=[("KS", "x" * size)])
    assert block[16:].startswith(head + "x" * size + "PB")
    assert unwrap_key(KBPKS["B"], block).header.optional_blocks == (("KS", "x" * size),)


@EVERY_KBPK
def test_every_usage_that_may_leave_comes_back_as_itself(name):
    for usage, usage_code in USAGE_CODES.items():
        key = key_of(usage)
        if name == "B" and key.cipher is not Cipher.TDES:
            continue
        block = wrap(KBPKS[name], key)
        header, came_back = unwrap_key(KBPKS[name], block)
        assert came_back == key
        assert (header.usage_code, header.mode_of_use) == (usage_code.code, usage_code.modes[0])
        assert block[0] == name[0]
        assert int(block[1:5]) == len(block)


def test_codes_are_two_different_characters_and_working_keys_have_none():
    codes = [usage_code.code for usage_code in USAGE_CODES.values()]
    assert len(set(codes)) == len(codes)
    assert {len(code) for code in codes} == {2}
    working = {KeyUsage.SESSION_AC, KeyUsage.SESSION_SMI, KeyUsage.SESSION_SMC, KeyUsage.MESSAGE_MAC}
    assert set(KeyUsage) - set(USAGE_CODES) == working
    for usage in working:
        with pytest.raises(KeyUsageError):
            wrap(KBPKS["S"], Key(Cipher.TDES, usage, VALUE[:16]))


@EVERY_KBPK
def test_every_changed_character_is_refused(name):
    block = wrap(KBPKS[name], optional_blocks=[("KS", "0123"), ("TS", "20260101T000000Z")])
    unwrap_key(KBPKS[name], block)
    for at, old in enumerate(block):
        for new in {chr(ord(old) ^ 1), chr(ord(old) ^ 0x20), "0", "F", "é"} - {old}:
            with pytest.raises(KeyBlockInvalidError):
                unwrap_key(KBPKS[name], block[:at] + new + block[at + 1 :])


@EVERY_KBPK
def test_a_truncated_or_extended_block_is_refused(name):
    block = wrap(KBPKS[name])
    for size in range(len(block)):
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(KBPKS[name], block[:size])
        if size >= 16:
            with pytest.raises(KeyBlockInvalidError):
                unwrap_key(KBPKS[name], f"{block[0]}{size:04d}{block[5:size]}")
    for wrong in (block + "0", block + "00" * 16, block + "\n", " " + block):
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(KBPKS[name], wrong)


@EVERY_KBPK
def test_another_protection_key_of_any_kind_is_refused(name):
    block = wrap(KBPKS[name])
    others = [other for other_name, other in KBPKS.items() if other_name != name]
    others.append(kbpk(KBPKS[name].cipher, len(KBPKS[name].value), first=0x81))
    for other in others:
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(other, block)


def test_an_sm4_block_passes_for_no_standard_one():
    block = wrap(KBPKS["S"], Key(Cipher.SM4, KeyUsage.IMK_AC, VALUE[:16]))
    aes = Key(Cipher.AES, KeyUsage.KEY_BLOCK_PROTECTION, KBPKS["S"].value)
    for protection in (aes, KBPKS["S"]):
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(protection, "D" + block[1:])
    assert (block[0], block[7]) == ("S", "4")


def test_all_refusals_of_a_changed_block_read_the_same():
    protection = KBPKS["D-128"]
    block = wrap(protection)
    wrongs = [
        "",
        block[:-1],
        block[:-1] + "g",
        block[:20] + ("0" if block[20] != "0" else "1") + block[21:],
        forge(protection, usage_code="ZZ"),
        forge(protection, value=b"\x00" * 15),
        wrap(KBPKS["B"]),
    ]
    texts = set()
    for wrong in wrongs:
        with pytest.raises(KeyBlockInvalidError) as refusal:
            unwrap_key(protection, wrong)
        assert refusal.value.__cause__ is None
        texts.add(str(refusal.value))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"usage_code": "ZZ"},
        {"usage_code": "M7", "mode_of_use": "C"},
        {"algorithm": "D"},
        {"algorithm": "4", "usage_code": "11", "mode_of_use": "C"},
        {"mode_of_use": "X"},
        {"mode_of_use": "N"},
        {"usage_code": "E0", "mode_of_use": "B"},
        {"usage_code": "V2", "mode_of_use": "E"},
        {"key_version": "c1"},
        {"value": VALUE[:8]},
        {"value": VALUE[:24]},
        {"value": VALUE[:32], "algorithm": "A"},
    ],
    ids=str,
)
def test_an_authentic_block_that_says_the_impossible_is_refused(fields):
    protection = KBPKS["D-128"]
    unwrap_key(protection, forge(protection))
    with pytest.raises(KeyBlockInvalidError):
        unwrap_key(protection, forge(protection, **fields))


def test_an_authentic_block_of_an_unwanted_usage_is_refused():
    block = wrap(KBPKS["B"])
    assert unwrap_key(KBPKS["B"], block, usages={KeyUsage.PIN_ENCRYPTION}).key == PIN_KEY
    with pytest.raises(KeyUsageError):
        unwrap_key(KBPKS["B"], block, usages={KeyUsage.DATA_ENCRYPTION})


@pytest.mark.parametrize("usage", USAGE_CODES)
def test_a_key_for_one_direction_is_taken_by_those_alone_who_keep_to_it(usage):
    full, *narrower = USAGE_CODES[usage].modes
    protection, key = KBPKS["D-256"], key_of(usage)
    assert unwrap_key(protection, wrap(protection, key, mode_of_use=full)).header.mode_of_use == full
    for mode in narrower:
        block = wrap(protection, key, mode_of_use=mode)
        for taken in ((), "".join(set("BCDEGVX") - {mode})):
            with pytest.raises(KeyUsageError):
                unwrap_key(protection, block, narrower_modes=taken)
        header, came_back = unwrap_key(protection, block, narrower_modes=mode)
        assert (header.mode_of_use, came_back) == (mode, key)


@pytest.mark.parametrize(
    ("cipher", "value"),
    [
        (Cipher.TDES, VALUE[:8] * 2),
        (Cipher.TDES, VALUE[:8] + bytes(byte ^ 1 for byte in VALUE[:8])),
        (Cipher.TDES, b"\x01" * 16),
        (Cipher.AES, bytes(16)),
        (Cipher.SM4, bytes(16)),
    ],
    ids=["equal halves", "equal but for parity", "parity alone", "zero AES", "zero SM4"],
)
def test_a_key_that_protects_nothing_does_not_come_out_of_a_block(cipher, value):
    protection = KBPKS["D-128"]
    block = wrap(protection, Key(cipher, KeyUsage.PIN_ENCRYPTION, value))
    with pytest.raises(KeyBlockInvalidError, match=r"zero|halves"):
        unwrap_key(protection, block)


def test_a_key_wrapping_key_of_the_standard_is_read_as_a_protection_key():
    block = forge(KBPKS["D-128"], usage_code="K0", mode_of_use="B")
    assert unwrap_key(KBPKS["D-128"], block).key.usage is KeyUsage.KEY_BLOCK_PROTECTION


@pytest.mark.parametrize(
    ("protection", "key"),
    [
        ("B", Key(Cipher.AES, KeyUsage.IMK_AC, VALUE[:16])),
        ("B", Key(Cipher.SM4, KeyUsage.IMK_AC, VALUE[:16])),
        ("B", Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, VALUE)),
        ("S", Key(Cipher.AES, KeyUsage.IMK_AC, VALUE[:24])),
        ("D-128", Key(Cipher.AES, KeyUsage.IMK_AC, VALUE[:24])),
        ("D-192", Key(Cipher.AES, KeyUsage.IMK_AC, VALUE[:32])),
    ],
    ids=[
        "AES under 3DES",
        "SM4 under 3DES",
        "HMAC under 3DES",
        "AES-192 under SM4",
        "192 under 128",
        "256 under 192",
    ],
)
def test_a_key_is_not_wrapped_under_a_weaker_one(protection, key):
    with pytest.raises(KeyUsageError, match="weaker"):
        wrap(KBPKS[protection], key)


def test_a_stronger_key_does_not_come_out_of_a_weaker_ones_block():
    block = forge(KBPKS["B"], version=KeyBlockVersion.B, algorithm="A")
    with pytest.raises(KeyBlockInvalidError):
        unwrap_key(KBPKS["B"], block)


def test_only_a_protection_key_wraps_and_unwraps():
    other = Key(Cipher.AES, KeyUsage.DATA_ENCRYPTION, KBPKS["D-128"].value)
    with pytest.raises(KeyUsageError):
        wrap(other)
    with pytest.raises(KeyUsageError):
        unwrap_key(other, wrap(KBPKS["D-128"]))


def test_a_key_leaves_only_if_it_may_and_never_becomes_freer():
    with pytest.raises(KeyUsageError, match="exportable"):
        wrap(KBPKS["B"], exportability=Exportability.NON_EXPORTABLE)
    with pytest.raises(KeyUsageError, match="freer"):
        wrap(KBPKS["B"], receiver_exportability=Exportability.SENSITIVE)
    assert unwrap_key(KBPKS["B"], wrap(KBPKS["B"])).header.exportability is Exportability.NON_EXPORTABLE
    for at_receiver in (Exportability.NON_EXPORTABLE, EXPORTABLE, Exportability.SENSITIVE):
        block = wrap(KBPKS["B"], exportability=Exportability.SENSITIVE, receiver_exportability=at_receiver)
        assert block[11] == at_receiver.value
        assert unwrap_key(KBPKS["B"], block).header.exportability is at_receiver


@pytest.mark.parametrize(
    "options",
    [
        {"mode_of_use": "X"},
        {"mode_of_use": ""},
        {"mode_of_use": "BD"},
        {"key_version": "0"},
        {"key_version": "c1"},
        {"key_version": "é1"},
        {"optional_blocks": [("K", "1")]},
        {"optional_blocks": [("KS", "é")]},
        {"optional_blocks": [("KS", "1"), ("KS", "2")]},
        {"optional_blocks": [("PB", "0000")]},
        {"optional_blocks": [("KS", "0" * 9900)]},
        {"optional_blocks": [(f"{number:02d}", "") for number in range(99)]},
    ],
    ids=lambda options: str(options)[:50],
)
def test_a_header_out_of_its_shape_is_not_written(options):
    with pytest.raises(ValueError, match=r"."):
        wrap(KBPKS["B"], **options)


OPTIONAL_BLOCKS = st.dictionaries(
    st.text("ABCKSTV0123456789", min_size=2, max_size=2),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=300),
    max_size=6,
)


@EVERY_KBPK
@given(
    blocks=OPTIONAL_BLOCKS,
    mode_of_use=st.sampled_from("BDE"),
    key_version=st.sampled_from(["00", "01", "Zz"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(name, blocks, mode_of_use, key_version):
    optional_blocks = tuple(blocks.items())
    block = wrap(
        KBPKS[name], mode_of_use=mode_of_use, key_version=key_version, optional_blocks=optional_blocks
    )
    header, key = unwrap_key(KBPKS[name], block, narrower_modes="DE")
    assert key == PIN_KEY
    assert header.optional_blocks == optional_blocks
    assert (header.mode_of_use, header.key_version) == (mode_of_use, key_version)
    alignment = 8 if name == "B" else 16
    assert len(block) % alignment == 0


@given(text=st.text(max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_text_is_refused_by_type(text):
    for block in (text, f"D{len(text) + 16:04d}P0TB00E0100{text}"):
        with pytest.raises(KeyBlockInvalidError):
            unwrap_key(KBPKS["D-128"], block)


def test_a_blocks_length_does_not_tell_its_keys():
    sizes = {
        len(wrap(KBPKS["D-256"], Key(Cipher.AES, KeyUsage.IMK_AC, VALUE[:size]))) for size in (16, 24, 32)
    }
    assert len(sizes) == 1


def test_the_same_key_is_never_written_the_same_way_twice():
    assert wrap(KBPKS["B"]) != wrap(KBPKS["B"])


def test_neither_key_is_in_what_is_shown():
    unwrapped = unwrap_key(KBPKS["D-128"], wrap(KBPKS["D-128"]))
    assert VALUE[:16].hex() not in repr(unwrapped).lower()
    assert repr(VALUE[:16]) not in repr(unwrapped)
    assert "****" in repr(unwrapped)
