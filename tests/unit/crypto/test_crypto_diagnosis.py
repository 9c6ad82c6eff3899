"""Every way in which a cryptogram is known to go wrong is found, by trying no more than a bounded number of MACs."""

from dataclasses import replace

import pytest

from crypto.blocks import encrypt_ecb
from crypto.cryptogram import TransactionData, generate_arqc
from crypto.diversification import (
    SessionMethod,
    derive_emv_common_session_key,
    derive_pboc_session_key,
    derive_udk,
)
from crypto.errors import KeyNotFoundError, KeyStateError, KeyUsageError
from crypto.key_store import diagnosis
from crypto.key_store.checks import ArqcCheck
from crypto.key_store.diagnosis import ArqcDataLayout, ArqcFinding, ArqcParameters
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption
from crypto.macs import Padding, mac_algorithm_1, mac_algorithm_3

PAN = "6217000010012345678"
IAD = bytes.fromhex("07010103A00000010A010000000000A1B2C3D4")
TRANSACTION = TransactionData(
    amount_authorized_minor=12_345,
    amount_other_minor=0,
    terminal_country_code="156",
    tvr=bytes.fromhex("0000008000"),
    transaction_currency_code="156",
    transaction_date="260101",
    transaction_type="00",
    unpredictable_number=bytes.fromhex("0BADCAFE"),
    aip=bytes.fromhex("7C00"),
    atc=0x0102,
    cvr=IAD[3:7],
)
AGREED = TRANSACTION.encode()


class Masters:
    """Master keys of a backend, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: dict[KeyRef, tuple[KeyInfo, Key]] = {}
        self.calls = 0

    def add(self, name: str, version: int = 1, *, cipher: Cipher = Cipher.SM4, **facts: object) -> Key:
        key = Key(cipher, KeyUsage.IMK_AC, bytes([len(self.keys) + 1]) * 16)
        info = KeyInfo(
            name=name,
            version=version,
            usage=KeyUsage.IMK_AC,
            cipher=cipher,
            kcv=key.kcv(),
            **{"state": KeyState.ACTIVE, **facts},
        )
        self.keys[info.ref] = info, key
        return key

    def describe(self) -> list[KeyInfo]:
        return [info for info, _ in self.keys.values()]

    def require_usable(self, ref: KeyRef, usage: KeyUsage) -> KeyInfo:
        if ref not in self.keys:
            raise KeyNotFoundError
        info = self.keys[ref][0]
        if info.usage is not usage:
            raise KeyUsageError
        if info.state not in (KeyState.ACTIVE, KeyState.VERIFY_ONLY):
            raise KeyStateError
        return info

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        self.calls += 1
        return encrypt_ecb(self.keys[ref][1], blocks)

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        raise NotImplementedError

    def explain(
        self, arqc: bytes, *, key: str = "imk", version: int = 1, known: bool = True, **changes: object
    ):
        check = ArqcCheck(
            **{
                "key": KeyRef(key, version),
                "pan": PAN,
                "psn": "00",
                "data": AGREED,
                "atc": TRANSACTION.atc,
                "arqc": arqc,
                **changes,
            }
        )
        if not known:
            return diagnosis.explain_arqc(self, self.describe(), check)
        return diagnosis.explain_arqc(self, self.describe(), check, transaction=TRANSACTION, iad=IAD)


@pytest.fixture
def masters() -> Masters:
    masters = Masters()
    masters.add("imk")
    return masters


def signed(
    imk: Key,
    *,
    data: bytes = AGREED,
    pan: str = PAN,
    psn: str = "00",
    option: UdkOption = UdkOption.A,
    atc: int = TRANSACTION.atc,
    emv: bool = False,
    padding: Padding | None = None,
) -> bytes:
    """What a card with these habits sends, by the functions of the standards."""
    udk = derive_udk(imk, pan=pan, psn=psn, option=option)
    if emv:
        session_key = derive_emv_common_session_key(udk, diversifier=atc.to_bytes(2) + bytes(6))
    else:
        session_key = derive_pboc_session_key(udk, atc=atc)
    if padding is None:
        return generate_arqc(session_key, data)
    mac = mac_algorithm_3 if imk.cipher is Cipher.TDES else mac_algorithm_1
    return mac(session_key, data, padding=padding, size=8)


def only_difference(explanation: diagnosis.ArqcExplanation) -> dict[str, object]:
    assert explanation.finding is ArqcFinding.FITS_OTHER_PARAMETERS
    expected, fitting = explanation.expected, explanation.fitting
    names = ArqcParameters.__dataclass_fields__
    return {
        name: getattr(fitting, name) for name in names if getattr(fitting, name) != getattr(expected, name)
    }


def imk_of(masters: Masters) -> Key:
    return masters.keys[KeyRef("imk", 1)][1]


def test_a_right_cryptogram_is_proven_by_the_first_mac(masters: Masters) -> None:
    explanation = masters.explain(signed(imk_of(masters)))
    assert explanation.finding is ArqcFinding.PROVEN
    assert explanation.fitting == explanation.expected
    assert masters.calls == 1


@pytest.mark.parametrize(
    ("layout", "data"),
    [
        (ArqcDataLayout.WITHOUT_CVR, AGREED[:-4]),
        (ArqcDataLayout.WHOLE_IAD, AGREED[:-4] + IAD),
        (ArqcDataLayout.MCHIP_CVR, AGREED[:-4] + IAD[2:8]),
        (ArqcDataLayout.CVR_WITHOUT_LENGTH, AGREED[:-4] + IAD[4:7]),
        (ArqcDataLayout.ATC_BEFORE_AIP, AGREED[:29] + b"\x01\x02" + TRANSACTION.aip + TRANSACTION.cvr),
        (ArqcDataLayout.WITHOUT_AMOUNT_OTHER, AGREED[:6] + AGREED[12:]),
        (ArqcDataLayout.AMOUNT_ZERO, bytes(6) + AGREED[6:]),
        (
            ArqcDataLayout.VISA_CVN_17,
            AGREED[:6] + TRANSACTION.unpredictable_number + b"\x01\x02" + IAD[4:5],
        ),
    ],
)
def test_other_data_elements_are_found(masters: Masters, layout: ArqcDataLayout, data: bytes) -> None:
    explanation = masters.explain(signed(imk_of(masters), data=data))
    assert only_difference(explanation) == {"data": layout}


def test_every_layout_has_a_case_of_its_own() -> None:
    marks = test_other_data_elements_are_found.pytestmark
    tried = {layout for layout, _ in marks[0].args[1]}
    assert tried == set(ArqcDataLayout) - {ArqcDataLayout.AS_AGREED}


@pytest.mark.parametrize("atc", [0x0103, 0x0101, 0x0104, 0x0100, 0x0201])
def test_neighbouring_and_swapped_counters_are_found(masters: Masters, atc: int) -> None:
    data = replace(TRANSACTION, atc=atc).encode()
    assert only_difference(masters.explain(signed(imk_of(masters), data=data, atc=atc))) == {"atc": atc}


@pytest.mark.parametrize("psn", [f"{number:02d}" for number in range(1, 10)])
def test_other_sequence_numbers_are_found(masters: Masters, psn: str) -> None:
    assert only_difference(masters.explain(signed(imk_of(masters), psn=psn))) == {"psn": psn}


def test_a_card_number_without_sequence_number_is_found(masters: Masters) -> None:
    # Its rightmost 16 digits are those of number ‖ sequence number when the number's last two play that part.
    arqc = signed(imk_of(masters), pan=PAN[:-2], psn=PAN[-2:])
    assert only_difference(masters.explain(arqc)) == {"psn": ""}


def test_another_session_key_is_found() -> None:
    masters = Masters()
    imk = masters.add("imk", cipher=Cipher.TDES)
    assert only_difference(masters.explain(signed(imk, emv=True))) == {
        "session_method": SessionMethod.EMV_COMMON
    }


def test_a_card_that_signs_with_its_own_key_is_found(masters: Masters) -> None:
    udk = derive_udk(imk_of(masters), pan=PAN, psn="00")
    own_key = Key(udk.cipher, KeyUsage.SESSION_AC, udk.value)
    arqc = mac_algorithm_1(own_key, AGREED, padding=Padding.ONE_THEN_ZEROS, size=8)
    assert only_difference(masters.explain(arqc)) == {"session_method": None}


def test_another_derivation_option_is_found(masters: Masters) -> None:
    arqc = signed(imk_of(masters), option=UdkOption.B)
    assert only_difference(masters.explain(arqc)) == {"udk_option": UdkOption.B}


def test_another_padding_is_found(masters: Masters) -> None:
    arqc = signed(imk_of(masters), padding=Padding.ZEROS)
    assert only_difference(masters.explain(arqc)) == {"padding": Padding.ZEROS}


def test_another_version_of_the_name_is_asked_before_other_names(masters: Masters) -> None:
    masters.add("aaa-other")
    second = masters.add("imk", 2, state=KeyState.VERIFY_ONLY)
    difference = only_difference(masters.explain(signed(second)))
    assert difference == {"key": KeyRef("imk", 2), "kcv": second.kcv()}
    # The expected key and the one that fits: nobody else was asked.
    assert masters.calls == 2


def test_a_key_of_another_name_and_cipher_is_found(masters: Masters) -> None:
    other = masters.add("imk-bank-b", cipher=Cipher.TDES)
    assert only_difference(masters.explain(signed(other)))["key"] == KeyRef("imk-bank-b", 1)


@pytest.mark.parametrize("state", [KeyState.PRE_ACTIVE, KeyState.DESTROYED])
def test_a_key_out_of_use_is_not_tried(masters: Masters, state: KeyState) -> None:
    other = masters.add("imk-bank-b", state=state)
    assert masters.explain(signed(other)).finding is ArqcFinding.FITS_NOTHING


def test_two_deviations_at_once_are_found(masters: Masters) -> None:
    imk = imk_of(masters)
    arqc = signed(imk, psn="01", data=AGREED[:-4] + IAD)
    assert only_difference(masters.explain(arqc)) == {"psn": "01", "data": ArqcDataLayout.WHOLE_IAD}
    second = masters.add("imk", 2)
    difference = only_difference(masters.explain(signed(second, padding=Padding.ZEROS)))
    assert difference == {"key": KeyRef("imk", 2), "kcv": second.kcv(), "padding": Padding.ZEROS}


def test_without_the_elements_the_data_stay_as_they_are(masters: Masters) -> None:
    imk = imk_of(masters)
    arqc = signed(imk, data=AGREED[:-4])
    assert masters.explain(arqc, known=False).finding is ArqcFinding.FITS_NOTHING
    # A counter that is wrong in the session key only.
    assert only_difference(masters.explain(signed(imk, atc=0x0103), known=False)) == {"atc": 0x0103}


def test_work_is_bounded_however_many_keys_there_are(
    masters: Masters, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        masters.add(f"imk-{number}")
    macs = 0

    def counted(*arguments: object, **options: object) -> bytes:
        nonlocal macs
        macs += 1
        return mac_algorithm_1(*arguments, **options)

    monkeypatch.setattr(diagnosis, "mac_algorithm_1", counted)
    assert masters.explain(bytes(8)).finding is ArqcFinding.FITS_NOTHING
    assert 500 < macs <= diagnosis.MACS_MAX
    assert masters.calls == diagnosis.KEYS_TRIED_MAX


def test_no_candidate_is_tried_twice(masters: Masters, monkeypatch: pytest.MonkeyPatch) -> None:
    masters.add("imk", 2)
    tried = []
    cryptogram = diagnosis._Trial._cryptogram

    def noted(trial: object, parameters: ArqcParameters) -> bytes:
        tried.append(parameters)
        return cryptogram(trial, parameters)

    monkeypatch.setattr(diagnosis._Trial, "_cryptogram", noted)
    masters.explain(bytes(8))
    assert len(tried) == len(set(tried))


def test_the_explanation_shows_no_card_number_key_or_right_cryptogram(masters: Masters) -> None:
    imk = imk_of(masters)
    shown = repr(masters.explain(bytes(8))) + repr(masters.explain(signed(imk, psn="01")))
    for secret in (PAN, imk.value.hex(), signed(imk).hex(), repr(signed(imk))):
        assert secret not in shown
