"""A chip card in memory: the keys a personalisation bureau writes, a transaction counter, and what a chip computes.

It makes real cryptograms and real answers, so that everything the core checks on a chip is checked. For tests,
demonstration and load; a real chip never lets its keys out, and neither does this one: no repr, no pickle.
"""

import hmac
import secrets
from typing import NoReturn, SupportsIndex

from onecard.v1 import card_authentication_pb2, common_pb2

from crypto.cryptogram import ARQC_SIZE, ATC_MAX, TransactionData, generate_arpc_method_1, generate_arqc
from crypto.diversification import SessionMethod, derive_pboc_session_key
from crypto.internal_authentication import generate_response
from crypto.issuer_script import IssuerScript, ScriptCommand, ScriptContext, open_issuer_script
from crypto.key_store.checks import CardKeys
from crypto.keys import Key

COUNTRY_CODE = "156"
CURRENCY_CODE = "156"
GOODS_AND_SERVICES = 0
# Online PIN was not asked for; nothing else stands out.
TVR = bytes.fromhex("0000008000")
AIP = bytes.fromhex("7C00")
# Length 7, derivation key index 1, cryptogram version 1, then the card verification results.
IAD = bytes.fromhex("07010103A00000010A010000000000A1B2C3D4")
CVR = IAD[3:7]


class IssuerNotGenuineError(Exception):
    """The answer does not carry the ARPC of the card's issuer: somebody else answered, or changed the answer."""


class CardExhaustedError(Exception):
    """The transaction counter reached its end; a card never starts it again (EMV 4.3 Book 2)."""


class VirtualChipCard:
    """One chip.

    Args:
        keys: as ``SoftwareKeyStore.personalise`` gives them.
        pan: 16 to 19 digits.
        psn: two digits.
        identification_code: 32 hexadecimal digits.
        atc: transactions made so far.
        script_keys: card keys for issuer scripts, ``UDK_SMI`` and ``UDK_SMC``; a card without takes none.
    """

    __slots__ = ("_keys", "_script_keys", "atc", "identification_code", "pan", "psn")

    def __init__(
        self,
        *,
        keys: CardKeys,
        pan: str,
        psn: str,
        identification_code: str,
        atc: int = 0,
        script_keys: tuple[Key, Key] | None = None,
    ) -> None:
        self._keys = keys
        self._script_keys = script_keys
        self.pan = pan
        self.psn = psn
        self.identification_code = identification_code
        self.atc = atc

    def __repr__(self) -> str:
        return f"VirtualChipCard(****{self.pan[-4:]}, atc={self.atc}, keys ****)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a chip is neither pickled nor copied")

    def sign(
        self, *, amount_minor: int, transaction_date: str, unpredictable_number: bytes | None = None
    ) -> common_pb2.ChipCryptogram:
        """GENERATE AC: counts one transaction and signs it.

        Args:
            amount_minor: 0 to 999999999999, in 分.
            transaction_date: the terminal's date, YYMMDD.
            unpredictable_number: 4 bytes of the terminal; drawn here when it gives none.
        Raises:
            CardExhaustedError: the counter is at its end.
            ValueError: malformed amount, date or number.
        """
        if self.atc >= ATC_MAX:
            raise CardExhaustedError
        number = secrets.token_bytes(4) if unpredictable_number is None else unpredictable_number
        data = TransactionData(
            amount_authorized_minor=amount_minor,
            amount_other_minor=0,
            terminal_country_code=COUNTRY_CODE,
            tvr=TVR,
            transaction_currency_code=CURRENCY_CODE,
            transaction_date=transaction_date,
            transaction_type=f"{GOODS_AND_SERVICES:02d}",
            unpredictable_number=number,
            aip=AIP,
            atc=self.atc + 1,
            cvr=CVR,
        ).encode()
        self.atc += 1
        return common_pb2.ChipCryptogram(
            arqc=generate_arqc(derive_pboc_session_key(self._keys.udk_ac, atc=self.atc), data),
            atc=self.atc,
            unpredictable_number=number,
            tvr=TVR,
            aip=AIP,
            iad=IAD,
            transaction_date=transaction_date,
            transaction_type=GOODS_AND_SERVICES,
            terminal_country_code=COUNTRY_CODE,
            psn=self.psn,
        )

    def answer(self, challenge: card_authentication_pb2.CreateChallengeResponse) -> common_pb2.ChipAnswer:
        """INTERNAL AUTHENTICATE: answers a challenge of the core.

        Raises:
            ValueError: the challenge is malformed.
        """
        return common_pb2.ChipAnswer(
            identification_code=self.identification_code,
            challenge_token=challenge.challenge_token,
            response=generate_response(
                self._keys.ss_authentication,
                process_factor=challenge.process_factor,
                original_data=challenge.original_data,
            ),
        )

    def verify_issuer(
        self, cryptogram: common_pb2.ChipCryptogram, *, response_code: str, arpc: bytes
    ) -> None:
        """EXTERNAL AUTHENTICATE: checks that the answer comes from who holds the card's keys.

        Args:
            cryptogram: the one this card made for the operation.
            response_code: as answered, two characters; under the ARPC, so a changed one breaks it.
            arpc: 8 bytes.
        Raises:
            IssuerNotGenuineError: it does not.
        """
        if len(cryptogram.arqc) != ARQC_SIZE or len(response_code) != 2 or not response_code.isascii():
            raise IssuerNotGenuineError("the answer has another shape")
        expected = generate_arpc_method_1(
            derive_pboc_session_key(self._keys.udk_ac, atc=cryptogram.atc),
            arqc=cryptogram.arqc,
            arc=response_code.encode(),
        )
        if not hmac.compare_digest(expected, arpc):
            raise IssuerNotGenuineError("the answer is not the issuer's")

    def take_script(self, command: bytes, *, cryptogram: common_pb2.ChipCryptogram) -> ScriptCommand:
        """Takes an issuer's command, if it is for this card and this transaction.

        Args:
            command: the whole command.
            cryptogram: the one this card made for the transaction.
        Raises:
            IssuerNotGenuineError: this card takes no scripts.
            MacInvalidError: not the issuer's, not for this card, or not for this transaction.
        """
        if self._script_keys is None:
            raise IssuerNotGenuineError("this card holds no keys for scripts")
        context = ScriptContext(method=SessionMethod.PBOC, atc=cryptogram.atc, arqc=cryptogram.arqc)
        udk_smi, udk_smc = self._script_keys
        return open_issuer_script(IssuerScript(command), context, udk_smi=udk_smi, udk_smc=udk_smc).command
