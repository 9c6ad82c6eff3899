"""The virtual chip card against the key store of the core: what it makes is proven, what is changed is not."""

import copy
import pickle
from collections.abc import Callable

import pytest
from onecard.v1 import card_authentication_pb2, common_pb2

from clients.chip_card import CardExhaustedError, IssuerNotGenuineError, VirtualChipCard
from crypto.challenge import IssuedChallenge
from crypto.cryptogram import TransactionData
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.software import SoftwareKeyStore

PAN, PSN, REGION = "6217000000000000005", "00", "360700"
ATR = bytes.fromhex("00814E432386971599") + (5).to_bytes(4)
CODE = "36" * 16
DATE = "261123"
CIPHERS = ("sm4", "tdes", "aes")

MakeCard = Callable[..., VirtualChipCard]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SoftwareKeyStore:
    return SoftwareKeyStore.create(tmp_path_factory.mktemp("keys") / "store")


@pytest.fixture
def make_card(store: SoftwareKeyStore) -> MakeCard:
    def make(cipher: str = "sm4", *, atc: int = 0) -> VirtualChipCard:
        keys = store.personalise(
            imk=store.active(f"imk-ac-{cipher}"),
            ss_master=store.active(f"ss-auth-{cipher}"),
            pan=PAN,
            psn=PSN,
            region=REGION,
            atr_historical_bytes=ATR,
        )
        return VirtualChipCard(keys=keys, pan=PAN, psn=PSN, identification_code=CODE, atc=atc)

    return make


def proven(
    store: SoftwareKeyStore, chip: common_pb2.ChipCryptogram, *, cipher: str = "sm4", amount_minor: int
) -> VerifiedArqc | None:
    """Checks it from the wire: the amount is the request's, the rest the chip's."""
    data = TransactionData(
        amount_authorized_minor=amount_minor,
        amount_other_minor=0,
        terminal_country_code="156",
        tvr=chip.tvr,
        transaction_currency_code="156",
        transaction_date=chip.transaction_date,
        transaction_type=f"{chip.transaction_type:02d}",
        unpredictable_number=chip.unpredictable_number,
        aip=chip.aip,
        atc=chip.atc,
        cvr=chip.iad[3:7],
    )
    check = ArqcCheck(
        key=store.active(f"imk-ac-{cipher}"),
        pan=PAN,
        psn=chip.psn,
        data=data.encode(),
        atc=chip.atc,
        arqc=chip.arqc,
    )
    return store.verify_arqcs([check])[0]


def challenge_of(store: SoftwareKeyStore) -> IssuedChallenge:
    return store.challenges(store.active("challenge")).issue(participant="agency", issued_at_s=1)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_cryptogram_is_proven_by_the_key_store(
    store: SoftwareKeyStore, make_card: MakeCard, cipher: str
) -> None:
    chip = make_card(cipher).sign(amount_minor=3_680, transaction_date=DATE)
    assert proven(store, chip, cipher=cipher, amount_minor=3_680) is not None


def test_changed_amount_breaks_the_cryptogram(store: SoftwareKeyStore, make_card: MakeCard) -> None:
    chip = make_card().sign(amount_minor=3_680, transaction_date=DATE)
    assert proven(store, chip, amount_minor=3_681) is None


def test_each_transaction_counts_one_and_signs_anew(make_card: MakeCard) -> None:
    card = make_card()
    first, second = (card.sign(amount_minor=1, transaction_date=DATE) for _ in range(2))
    assert (first.atc, second.atc) == (1, 2)
    assert first.arqc != second.arqc


def test_refused_data_count_no_transaction(make_card: MakeCard) -> None:
    card = make_card()
    with pytest.raises(ValueError, match="amount_authorized_minor"):
        card.sign(amount_minor=10**12, transaction_date=DATE)
    assert card.atc == 0


def test_counter_at_its_end_makes_no_cryptogram(make_card: MakeCard) -> None:
    card = make_card(atc=65_534)
    assert card.sign(amount_minor=1, transaction_date=DATE).atc == 65_535
    with pytest.raises(CardExhaustedError):
        card.sign(amount_minor=1, transaction_date=DATE)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("response_code", ["00", "51"])
def test_card_accepts_the_issuers_answer(
    store: SoftwareKeyStore, make_card: MakeCard, cipher: str, response_code: str
) -> None:
    card = make_card(cipher)
    chip = card.sign(amount_minor=5, transaction_date=DATE)
    verified = proven(store, chip, cipher=cipher, amount_minor=5)
    assert verified is not None
    card.verify_issuer(chip, response_code=response_code, arpc=verified.arpc(response_code.encode()))


def test_card_refuses_an_answer_that_is_not_the_issuers(store: SoftwareKeyStore, make_card: MakeCard) -> None:
    card = make_card()
    chip = card.sign(amount_minor=5, transaction_date=DATE)
    verified = proven(store, chip, amount_minor=5)
    assert verified is not None
    declined = verified.arpc(b"51")
    other = card.sign(amount_minor=5, transaction_date=DATE)
    for cryptogram, code, arpc in (
        (chip, "00", declined),  # a decline shown as an approval
        (chip, "51", b""),
        (chip, "", declined),
        (other, "51", declined),  # of another transaction
    ):
        with pytest.raises(IssuerNotGenuineError):
            card.verify_issuer(cryptogram, response_code=code, arpc=arpc)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_answer_to_a_challenge_is_proven_by_the_key_store(
    store: SoftwareKeyStore, make_card: MakeCard, cipher: str
) -> None:
    issued = challenge_of(store)
    answer = make_card(cipher).answer(
        card_authentication_pb2.CreateChallengeResponse(
            process_factor=issued.challenge.process_factor,
            original_data=issued.challenge.original_data,
            challenge_token=issued.token,
        )
    )
    assert (answer.challenge_token, answer.identification_code) == (issued.token, CODE)

    def check(response: bytes) -> bool:
        return store.verify_internal_authentications(
            [
                InternalAuthenticationCheck(
                    key=store.active(f"ss-auth-{cipher}"),
                    region=REGION,
                    atr_historical_bytes=ATR,
                    process_factor=issued.challenge.process_factor,
                    original_data=issued.challenge.original_data,
                    response=response,
                )
            ]
        )[0]

    assert check(answer.response)
    assert not check(bytes(8))


def test_card_shows_neither_keys_nor_number(make_card: MakeCard) -> None:
    card = make_card()
    assert PAN not in repr(card)
    assert repr(card) == f"VirtualChipCard(****{PAN[-4:]}, atc=0, keys ****)"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(card)
