"""Known answers, computed before the process serves: a library that computes wrongly must not serve.

Values are of published standards or computed with two implementations (said at each). Must stay under 10 ms.
"""

from cryptography.hazmat.primitives import hashes

from crypto.blocks import encrypt_ecb
from crypto.cryptogram import generate_arpc_method_1, generate_arqc
from crypto.diversification import derive_pboc_session_key, derive_udk, derive_udk_option_a
from crypto.errors import KeyBlockInvalidError, SelfTestError
from crypto.key_block import unwrap_key
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, cmac_tag, mac_algorithm_3, unionpay_ecb_mac
from crypto.sealing import open_sealed

_KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
_PAN = "6217000010012345678"
_AC_DATA = bytes.fromhex("00000001000000000000000001560000000000015625060100123456787C00001C03A0B800")
# Computed with two implementations: ARQC and ARPC (method 1, ARC "00") of _AC_DATA, PSN 00, ATC 001C.
_CARD_ANSWERS = {
    Cipher.TDES: ("A0FC3E3B42832C6D", "30CB61655CAC49C5"),
    Cipher.SM4: ("08D05742D77EBC89", "78C527CB11DD6544"),
}
# Protection key and key block, all holding one key: TR-31:2018 annex A, and under SM4 computed with two
# implementations.
_KEY_BLOCKS = {
    Cipher.TDES: (
        "DD7515F2BFC17F85CE48F3CA25CB21F6",
        "B0080P0TE00E000094B420079CC80BA3461F86FE26EFC4A3B8E4FA4C5F5341176EED7B727B8A248E",
    ),
    Cipher.AES: (
        "88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6",
        "D0112P0AE00E0000B82679114F470F540165EDFBF7E250FCEA43F810D215F8D207E2E417C07156A2"
        "7E8E31DA05F7425509593D03A457DC34",
    ),
    Cipher.SM4: (
        "0123456789ABCDEFFEDCBA9876543210",
        "S0112E04X00E0000CE0589F8D4429D69D096F1099C7075FD55A3A7B4279394240B516286688060EC"
        "D4D157F9AD9486C2E6E34F230295CBEA",
    ),
}
_KEY_IN_BLOCKS = "3F419E1CB7079442AA37474C2EFBF8B8"
# Computed with two implementations: ECB MAC of _UNIONPAY_MESSAGE under _KEY.
_UNIONPAY_MESSAGE = bytes.fromhex("0200302004C020C09811000000000000000051001834021000063243")
_UNIONPAY_MACS = {Cipher.TDES: b"FA1D2E46", Cipher.SM4: b"699DCE9CF0B51B8D"}


def run_self_test() -> None:
    """Computes every known answer once.

    Raises:
        SelfTestError: naming the first that came out wrong.
    """
    _test_primitives()
    _test_sealing()
    for cipher in _CARD_ANSWERS:
        _test_card(cipher)
    for cipher, mac in _UNIONPAY_MACS.items():
        key = Key(cipher, KeyUsage.MAC_UNIONPAY, _KEY)
        _expect(f"ECB MAC {cipher.value}", unionpay_ecb_mac(key, _UNIONPAY_MESSAGE), mac.hex())
    for cipher in _KEY_BLOCKS:
        _test_key_block(cipher)


def _test_primitives() -> None:
    sm4 = Key(Cipher.SM4, KeyUsage.MESSAGE_MAC, _KEY)
    _expect("SM4 (GB/T 32907-2016 A)", encrypt_ecb(sm4, _KEY), "681EDF34D206965E86B3E94F536E4246")
    digest = hashes.Hash(hashes.SM3())
    digest.update(b"abc")
    _expect(
        "SM3 (GB/T 32905-2016 A)",
        digest.finalize(),
        "66C7F0F462EEEDD9D1F2D46BDC10E4E24167C4875CF2F7A2297DA02B8F4BA8E0",
    )
    aes = Key(Cipher.AES, KeyUsage.MESSAGE_MAC, bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C"))
    _expect("AES-CMAC (RFC 4493, 4)", cmac_tag(aes, b""), "BB1D6929E95937287FA37D129B756746")
    tdes = Key(Cipher.TDES, KeyUsage.MESSAGE_MAC, _KEY)
    mac = mac_algorithm_3(tdes, b"Now is the time for all ", padding=Padding.ONE_THEN_ZEROS)
    _expect("retail MAC (ISO/IEC 9797-1 B)", mac, "E9086230CA3BE796")
    imk = Key(Cipher.TDES, KeyUsage.IMK_AC, _KEY)
    udk = derive_udk_option_a(imk, pan="12345678901234567", psn="01")
    _expect("UDK (EMV Book 2 A1.4.1)", udk.value, "73AD54688CEF2934B0979857E3C719F1")


def _test_sealing() -> None:
    key = Key(Cipher.SM4, KeyUsage.SEALING, _KEY)
    sealed = bytes.fromhex(
        "00001234567800000000ABCD"
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
        "83DE3541E4C2B58177E065A9BF7B62EC"
    )
    plaintext = open_sealed(key, sealed, aad=bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2"))
    _expect("SM4-GCM (RFC 8998 A.1)", plaintext, "".join(letter * 16 for letter in "ABCDEFEA"))


def _test_card(cipher: Cipher) -> None:
    udk = derive_udk(Key(cipher, KeyUsage.IMK_AC, _KEY), pan=_PAN, psn="00")
    session_key = derive_pboc_session_key(udk, atc=0x1C)
    arqc, arpc = _CARD_ANSWERS[cipher]
    computed = generate_arqc(session_key, _AC_DATA)
    _expect(f"ARQC {cipher.value}", computed, arqc)
    answer = generate_arpc_method_1(session_key, arqc=computed, arc=b"00")
    _expect(f"ARPC {cipher.value}", answer, arpc)


def _test_key_block(cipher: Cipher) -> None:
    kbpk, block = _KEY_BLOCKS[cipher]
    try:
        unwrapped = unwrap_key(Key(cipher, KeyUsage.KEY_BLOCK_PROTECTION, bytes.fromhex(kbpk)), block)
    except KeyBlockInvalidError:
        raise SelfTestError(f"the known key block under {cipher.value} does not open") from None
    _expect(f"key block under {cipher.value}", unwrapped.key.value, _KEY_IN_BLOCKS)


def _expect(what: str, computed: bytes, expected: str) -> None:
    if computed != bytes.fromhex(expected):
        raise SelfTestError(f"known answer of {what} came out wrong")
