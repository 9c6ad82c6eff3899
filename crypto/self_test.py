"""Known answers, computed before the process serves: a library that computes wrongly must not serve.

Values are of published standards, or computed with two implementations: this one, and straight formulas over the
``openssl`` command (SM4, AES, HMAC-SM3) or pyemv and psec (3DES). Must stay under 5 ms.
"""

from collections.abc import Sequence

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from crypto import blocks, dukpt_aes, dukpt_tdes, sealing
from crypto.blocks import ZeroChain, encrypt_ecb
from crypto.card_verification import CardVerificationKind, generate_cvv
from crypto.cryptogram import (
    generate_arpc_method_1,
    generate_arpc_method_2,
    generate_arqc,
    verify_arqc_generate_arpc,
)
from crypto.diversification import (
    SessionMethod,
    derive_emv_common_session_key,
    derive_pboc_session_key,
    derive_udk,
    derive_udk_option_a,
)
from crypto.dukpt_host import DukptHost
from crypto.dukpt_tdes import DukptKeyUse
from crypto.errors import CryptoError, SelfTestError
from crypto.issuer_script import ScriptContext, build_pin_change
from crypto.key_block import unwrap_key
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, cmac_tag, hmac_sm3, mac_algorithm_3, unionpay_ecb_mac
from crypto.pin_block import Pin, PinBlockFormat, decrypt_pin_block, encode_pin_block, encrypt_pin_block
from crypto.pin_verification import Ibm3624Layout, generate_pin_offset, generate_pvv
from crypto.script_pin_block import ScriptPinBlock
from crypto.sealing import open_sealed

_KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
_PAN = "6217000010012345678"
_AC_DATA = bytes.fromhex("00000001000000000000000001560000000000015625060100123456787C00001C03A0B800")
_CSU = bytes.fromhex("00820000")
# Computed with two implementations, of _AC_DATA, PSN 00, ATC 001C: ARQC, ARPC by method 1 (ARC "00") and method 2.
_CARD_ANSWERS = {
    Cipher.TDES: ("A0FC3E3B42832C6D", "30CB61655CAC49C5", "E2CDCC45"),
    Cipher.SM4: ("08D05742D77EBC89", "78C527CB11DD6544", "9F03C777"),
    Cipher.AES: ("3CB57FA0979C2CB2", "00FFF7C603ACCD28", "2E7F8D4F"),
}
# Computed with two implementations: PIN CHANGE to 1234, all card keys _KEY, ATC 001C, over the ARQC above.
_PIN_CHANGES = {
    (Cipher.SM4, SessionMethod.PBOC): "8424000214FE55BBD3C29F77CBFAD4B4962D9EB0B3BBDBF75A",
    (Cipher.TDES, SessionMethod.EMV_COMMON): "8424000214DBE2973211C078B34688D630450D77F52F2187A8",
}
# Key, block and ciphertext: GB/T 32907-2016 annex A; FIPS 197 C.1; the 3DES block behind a published check value.
_BLOCKS = {
    Cipher.SM4: (_KEY.hex(), _KEY.hex(), "681EDF34D206965E86B3E94F536E4246"),
    Cipher.AES: (
        "000102030405060708090A0B0C0D0E0F",
        "00112233445566778899AABBCCDDEEFF",
        "69C4E0D86A7B0430D8CDB78070B4C55A",
    ),
    Cipher.TDES: (_KEY.hex(), "0000000000000000", "08D7B4FB629D0885"),
}
# Computed with two implementations: CMAC of "abc" under _KEY.
_CMACS = {Cipher.SM4: "8E75238AC2672A6AEE408C1E251854D8", Cipher.TDES: "945D2EBA1B409868"}
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
# The published blocks hold keys for one direction; nothing is installed here.
_MODES_IN_BLOCKS = "E"
_KEY_IN_BLOCKS = "3F419E1CB7079442AA37474C2EFBF8B8"
# Computed with two implementations: ECB MAC of _UNIONPAY_MESSAGE under _KEY.
_UNIONPAY_MESSAGE = bytes.fromhex("0200302004C020C09811000000000000000051001834021000063243")
_UNIONPAY_MACS = {Cipher.TDES: b"FA1D2E46", Cipher.SM4: b"699DCE9CF0B51B8D"}
_TDES_KSNS = ("FFFF9876543210E00001", "FFFF9876543210E00003")
_BLOCK_BDK = bytes.fromhex("FEDCBA9876543210F1F1F1F1F1F1F1F1")
_BLOCK_KSNS = ("123456789012345600000001", "123456789012345600000003")
# PIN keys of these counters: X9.24-1:2009 A.4; X9.24-3:2017 supplement (AES, first); the others computed with two
# implementations.
_PIN_KEYS = {
    Cipher.TDES: ("042666B49184CF5C68DE9628D0397B36", "0DF3D9422ACA561A47676D07AD6BAD05"),
    Cipher.AES: ("AF8CB133A78F8DC2D1359F18527593FB", "7D69F01F3B45449F62C7816ECE723268"),
    Cipher.SM4: ("49B65638FB93DD79184D2E6978C99150", "ECD388994BFA3E44DC92347D1C39E1FA"),
}


def run_self_test() -> None:
    """Computes every known answer once.

    Raises:
        SelfTestError: naming the first that came out wrong.
    """
    try:
        _test_all()
    except CryptoError as error:
        if isinstance(error, SelfTestError):
            raise
        # What was refused is a known answer too: a block that does not open, a seal that is broken.
        raise _refused(error) from None
    except (
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        UnsupportedAlgorithm,
        InternalError,
    ) as error:
        # A library without SM4 says so by an error of its own; a broken one by any.
        raise _refused(error) from None


def _refused(error: Exception) -> SelfTestError:
    return SelfTestError(f"a known answer was refused: {type(error).__name__}")


def _test_all() -> None:
    _test_primitives()
    _test_blocks()
    _test_macs()
    _test_sealing()
    for cipher in _CARD_ANSWERS:
        _test_card(cipher)
    for cipher, method in _PIN_CHANGES:
        _test_issuer_script(cipher, method)
    for cipher, mac in _UNIONPAY_MACS.items():
        key = Key(cipher, KeyUsage.MAC_UNIONPAY, _KEY)
        _expect(f"ECB MAC {cipher.value}", unionpay_ecb_mac(key, _UNIONPAY_MESSAGE), mac.hex())
    for cipher in _KEY_BLOCKS:
        _test_key_block(cipher)
    _test_pins()
    _test_pin_verification()
    _test_dukpt()
    _test_dukpt_host(Cipher.TDES, _KEY, _TDES_KSNS)
    for cipher in (Cipher.AES, Cipher.SM4):
        _test_dukpt_host(cipher, _BLOCK_BDK, _BLOCK_KSNS)


def _test_primitives() -> None:
    digest = hashes.Hash(hashes.SM3())
    digest.update(b"abc")
    _expect(
        "SM3 (GB/T 32905-2016 A)",
        digest.finalize(),
        "66C7F0F462EEEDD9D1F2D46BDC10E4E24167C4875CF2F7A2297DA02B8F4BA8E0",
    )
    imk = Key(Cipher.TDES, KeyUsage.IMK_AC, _KEY)
    udk = derive_udk_option_a(imk, pan="12345678901234567", psn="01")
    _expect("UDK (EMV Book 2 A1.4.1)", udk.value, "73AD54688CEF2934B0979857E3C719F1")
    udk = Key(Cipher.TDES, KeyUsage.UDK_AC, _KEY)
    session_key = derive_emv_common_session_key(udk, diversifier=bytes.fromhex("001C000000000000"))
    _expect("session key (EMV Book 2 A1.3.1)", session_key.value, "E9FB384AF807B940FEDCEA613461B0C4")


def _test_blocks() -> None:
    for cipher, (key, clear, encrypted) in _BLOCKS.items():
        value = bytes.fromhex(key)
        computed = encrypt_ecb(Key(cipher, KeyUsage.MESSAGE_MAC, value), bytes.fromhex(clear))
        _expect(f"{cipher.value} encryption", computed, encrypted)
        decrypted = blocks.ecb_decryptor(cipher, value).update(bytes.fromhex(encrypted))
        _expect(f"{cipher.value} decryption", decrypted, clear)
    chain = ZeroChain(Cipher.SM4, _KEY)
    # Computed with two implementations: CBC of two blocks from zero, on a context that has written before.
    for message, last in (
        (_KEY, "681EDF34D206965E86B3E94F536E4246"),
        (_AC_DATA[:32], "C5A62BAB1DA79327B72B06F367E1D4A6"),
        (_KEY, "681EDF34D206965E86B3E94F536E4246"),
    ):
        _expect("SM4-CBC on a used context", chain.last_block(message), last)


def _test_macs() -> None:
    aes = Key(Cipher.AES, KeyUsage.MESSAGE_MAC, bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C"))
    _expect("AES-CMAC (RFC 4493, 4)", cmac_tag(aes, b""), "BB1D6929E95937287FA37D129B756746")
    for cipher, tag in _CMACS.items():
        _expect(f"CMAC {cipher.value}", cmac_tag(Key(cipher, KeyUsage.MAC_CMAC, _KEY), b"abc"), tag)
    tdes = Key(Cipher.TDES, KeyUsage.MESSAGE_MAC, _KEY)
    mac = mac_algorithm_3(tdes, b"Now is the time for all ", padding=Padding.ONE_THEN_ZEROS)
    _expect("retail MAC (ISO/IEC 9797-1 B)", mac, "E9086230CA3BE796")
    # Computed with two implementations.
    _expect(
        "HMAC-SM3",
        hmac_sm3(Key(Cipher.HMAC_SM3, KeyUsage.MAC_HMAC_SM3, 2 * _KEY), b"abc"),
        "5321E8BF4A089BE431CA15AC24956400ACF9A8843D2D62C052FAD88E33393DD7",
    )


def _test_sealing() -> None:
    key = Key(Cipher.SM4, KeyUsage.SEALING, _KEY)
    sealed = bytes.fromhex(
        "00001234567800000000ABCD"
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
        "83DE3541E4C2B58177E065A9BF7B62EC"
    )
    aad = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
    plaintext = open_sealed(key, sealed, aad=aad)
    _expect("SM4-GCM (RFC 8998 A.1)", plaintext, "".join(letter * 16 for letter in "ABCDEFEA"))
    nonce = sealed[: sealing.NONCE_SIZE]
    computed = sealing._seal_with_nonce(key, plaintext, aad=aad, nonce=nonce)
    _expect("SM4-GCM, sealed (RFC 8998 A.1)", computed, sealed.hex())


def _test_card(cipher: Cipher) -> None:
    udk = derive_udk(Key(cipher, KeyUsage.IMK_AC, _KEY), pan=_PAN, psn="00")
    session_key = derive_pboc_session_key(udk, atc=0x1C)
    arqc, arpc, arpc_2 = _CARD_ANSWERS[cipher]
    computed = generate_arqc(session_key, _AC_DATA)
    _expect(f"ARQC {cipher.value}", computed, arqc)
    answer = generate_arpc_method_1(session_key, arqc=computed, arc=b"00")
    _expect(f"ARPC {cipher.value}", answer, arpc)
    # One context for the check and the answer, as the server does it.
    both = verify_arqc_generate_arpc(session_key, _AC_DATA, arqc=computed, arc=b"00")
    _expect(f"ARQC and ARPC {cipher.value}", both, arpc)
    answer = generate_arpc_method_2(session_key, arqc=computed, csu=_CSU)
    _expect(f"ARPC method 2 {cipher.value}", answer, arpc_2)


def _test_issuer_script(cipher: Cipher, method: SessionMethod) -> None:
    is_pboc = method is SessionMethod.PBOC
    script = build_pin_change(
        ScriptContext(method=method, atc=0x1C, arqc=bytes.fromhex(_CARD_ANSWERS[cipher][0])),
        udk_smi=Key(cipher, KeyUsage.UDK_SMI, _KEY),
        udk_smc=Key(cipher, KeyUsage.UDK_SMC, _KEY),
        pin=Pin("1234"),
        pin_block=ScriptPinBlock.VIS if is_pboc else ScriptPinBlock.ISO_2,
        udk_ac=Key(cipher, KeyUsage.UDK_AC, _KEY) if is_pboc else None,
    )
    _expect(f"issuer script {cipher.value}", script.command, _PIN_CHANGES[cipher, method])


def _test_key_block(cipher: Cipher) -> None:
    kbpk, block = _KEY_BLOCKS[cipher]
    protection = Key(cipher, KeyUsage.KEY_BLOCK_PROTECTION, bytes.fromhex(kbpk))
    unwrapped = unwrap_key(protection, block, narrower_modes=_MODES_IN_BLOCKS)
    _expect(f"key block under {cipher.value}", unwrapped.key.value, _KEY_IN_BLOCKS)


def _test_pins() -> None:
    clear = encode_pin_block(Pin("1234"), pan="5555555551234567", format=PinBlockFormat.ISO_0)
    _expect("PIN block format 0 (ISO 9564-1)", clear, "041261AAAAEDCBA9")
    zpk = Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, bytes.fromhex("AF8CB133A78F8DC2D1359F18527593FB"))
    block = bytes.fromhex("A912150391AB65A67E52883D81CE2D15")
    pin = decrypt_pin_block(zpk, block, pan="4111111111111111", format=PinBlockFormat.ISO_4)
    _expect_text("PIN block format 4 (X9.24-3 supplement)", pin.digits, "1234")
    # Computed with two implementations.
    zpk = Key(Cipher.SM4, KeyUsage.PIN_ENCRYPTION, _KEY)
    block = encrypt_pin_block(zpk, Pin("1234"), pan=_PAN, format=PinBlockFormat.SM4_0)
    _expect("PIN block SM4_0", block, "9002F03050058E02A0551CDE134DFC1C")
    pin = decrypt_pin_block(zpk, block, pan=_PAN, format=PinBlockFormat.SM4_0)
    _expect_text("PIN block SM4_0", pin.digits, "1234")


def _test_pin_verification() -> None:
    pan = "1122334455667788"
    pvv = generate_pvv(Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_PVV, _KEY), Pin("4524"), pan=pan, pvki=1)
    _expect_text("PVV", pvv, "8523")
    pvk = Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_IBM3624, _KEY)
    layout = Ibm3624Layout(decimalisation="1234567890123456")
    _expect_text("IBM 3624 offset", generate_pin_offset(pvk, Pin("1234"), pan=pan, layout=layout), "7710")
    cvk = Key(Cipher.TDES, KeyUsage.CARD_VERIFICATION, b"\x99" * 8 + b"\x88" * 8)
    cvv = generate_cvv(cvk, kind=CardVerificationKind.CVV, pan="2" * 16, expiry="3333", service_code="111")
    _expect_text("CVV", cvv, "361")


def _test_dukpt() -> None:
    ksn = bytes.fromhex("FFFF9876543210E00003")
    initial_key = dukpt_tdes.derive_initial_key(Key(Cipher.TDES, KeyUsage.BDK, _KEY), ksn=ksn)
    value = dukpt_tdes.derive_transaction_value(initial_key, ksn=ksn)
    _expect("TDES DUKPT (X9.24-1:2009 A.4)", value, "0DF3D9422ACA56E547676D07AD6BADFA")
    bdk = Key(Cipher.AES, KeyUsage.BDK, _BLOCK_BDK)
    ksn = bytes.fromhex(_BLOCK_KSNS[0])
    pin_key = dukpt_aes.derive_working_key(
        dukpt_aes.derive_initial_key(bdk, ksn=ksn), ksn=ksn, use=DukptKeyUse.PIN
    )
    _expect("AES DUKPT (X9.24-3 supplement)", pin_key.value, _PIN_KEYS[Cipher.AES][0])


def _test_dukpt_host(cipher: Cipher, bdk: bytes, ksns: Sequence[str]) -> None:
    """Twice, because what is remembered answers the second time."""
    host = DukptHost(Key(cipher, KeyUsage.BDK, bdk), cache_max=8)
    asked = [(bytes.fromhex(ksn), DukptKeyUse.PIN) for ksn in ksns]
    for _ in range(2):
        for key, expected in zip(host.working_keys(asked), _PIN_KEYS[cipher], strict=True):
            if not isinstance(key, Key):
                raise SelfTestError(f"a known answer of DUKPT under {cipher.value} was refused")
            _expect(f"DUKPT host {cipher.value}", key.value, expected)


def _expect_text(what: str, computed: str, expected: str) -> None:
    if computed != expected:
        raise SelfTestError(f"known answer of {what} came out wrong")


def _expect(what: str, computed: bytes, expected: str) -> None:
    if computed != bytes.fromhex(expected):
        raise SelfTestError(f"known answer of {what} came out wrong")
