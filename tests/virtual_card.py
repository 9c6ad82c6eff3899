"""A card of the tests: what is printed on it, and a chip that signs and answers like a real one."""

from typing import Any

from onecard.v1 import card_authentication_pb2, common_pb2

from crypto.cryptogram import TransactionData, generate_arpc_method_1, generate_arqc
from crypto.diversification import derive_pboc_session_key
from crypto.internal_authentication import generate_response
from crypto.key_store.software import SoftwareKeyStore
from server.cards.directory import AC_KEY_NAMES, SS_KEY_NAMES, CardCipher
from server.cards.store import NewCard
from server.cards.synthetic import synthetic_card

TVR = bytes.fromhex("0000008000")
AIP = bytes.fromhex("7C00")
IAD = bytes.fromhex("07010103A00000010A010000000000A1B2C3D4")
TRANSACTION_DATE = "260101"
UNPREDICTABLE_NUMBER = bytes.fromhex("0BADCAFE")


class VirtualCard:
    """Card number ``n`` of the synthetic ones, personalised by the store under test.

    With a ``psn`` it is another chip on the same number: its own keys, and it says so in what it signs.
    """

    def __init__(
        self, store: SoftwareKeyStore, n: int, *, cipher: CardCipher = CardCipher.SM4, psn: str = ""
    ) -> None:
        codes = store.identification_codes(store.active("identification-code"))
        self.n = n
        self.facts: NewCard = synthetic_card(n, codes, cipher=cipher)
        self.pan = self.facts.pan
        self.name = self.facts.name
        self.identity_number = self.facts.identity_number
        self.identification_code = self.facts.identification_code
        self.atc = 0
        self._psn = psn
        self._keys = store.personalise(
            imk=store.active(AC_KEY_NAMES[cipher]),
            ss_master=store.active(SS_KEY_NAMES[cipher]),
            pan=self.pan,
            psn=psn or self.facts.psn,
            region=self.facts.issuing_region,
            atr_historical_bytes=self.facts.atr_historical_bytes,
        )

    def sign(
        self, amount_minor: int, *, atc: int | None = None, cvr: bytes = IAD[3:7]
    ) -> common_pb2.ChipCryptogram:
        """A cryptogram over the amount, under the next transaction counter unless one is given.

        ``cvr`` are the card verification results it signs; they say whether it asks to go online.
        """
        if atc is None:
            self.atc += 1
            atc = self.atc
        data = TransactionData(
            amount_authorized_minor=amount_minor,
            amount_other_minor=0,
            terminal_country_code="156",
            tvr=TVR,
            transaction_currency_code="156",
            transaction_date=TRANSACTION_DATE,
            transaction_type="00",
            unpredictable_number=UNPREDICTABLE_NUMBER,
            aip=AIP,
            atc=atc,
            cvr=cvr,
        )
        return common_pb2.ChipCryptogram(
            arqc=generate_arqc(derive_pboc_session_key(self._keys.udk_ac, atc=atc), data.encode()),
            atc=atc,
            unpredictable_number=UNPREDICTABLE_NUMBER,
            tvr=TVR,
            aip=AIP,
            iad=IAD[:3] + cvr + IAD[7:],
            transaction_date=TRANSACTION_DATE,
            psn=self._psn,
        )

    def accepts(self, chip: common_pb2.ChipCryptogram, *, arpc: bytes, response_code: str) -> bool:
        """Whether the chip takes ``arpc`` as its issuer's word for this response code."""
        session_key = derive_pboc_session_key(self._keys.udk_ac, atc=chip.atc)
        return arpc == generate_arpc_method_1(session_key, arqc=chip.arqc, arc=response_code.encode())

    def answer(
        self, challenge: card_authentication_pb2.CreateChallengeResponse, **changes: Any
    ) -> common_pb2.ChipAnswer:
        """The chip's answer to INTERNAL AUTHENTICATE."""
        response = generate_response(
            self._keys.ss_authentication,
            process_factor=challenge.process_factor,
            original_data=challenge.original_data,
        )
        parts = {
            "identification_code": self.identification_code,
            "challenge_token": challenge.challenge_token,
            "response": response,
        }
        return common_pb2.ChipAnswer(**parts | changes)
