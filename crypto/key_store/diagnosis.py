"""Why a cryptogram was not proven: the question operators ask, answered by trying what goes wrong.

First everything as agreed, then each single deviation, then pairs of them, within a fixed number of MACs. Callers of
the service are told one code whatever the reason. Must never return a key, a cryptogram that would have been right,
or a card number.
"""

import enum
import hmac
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from crypto.blocks import ecb_encryptor
from crypto.cryptogram import ARQC_SIZE, ATC_MAX, TransactionData
from crypto.diversification import SessionMethod, session_factor, udk_factor_of
from crypto.errors import KEY_REFUSALS, KeyNotFoundError, KeyStateError, KeyUsageError
from crypto.key_store.batches import MasterKeys
from crypto.key_store.checks import ArqcCheck
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption
from crypto.macs import Padding, mac_algorithm_1, mac_algorithm_3

KEYS_TRIED_MAX = 32
MACS_MAX = 2_000
# Sequence numbers in use; a card number without one is a factor of its own.
PSNS = tuple(f"{number:02d}" for number in range(10))
NO_PSN = ""
_UDK_SIZE = 16


class ArqcFinding(enum.Enum):
    """What the diagnosis found, the first that applies."""

    KEY_UNKNOWN = "KEY_UNKNOWN"
    KEY_OF_OTHER_USAGE = "KEY_OF_OTHER_USAGE"
    KEY_IN_WRONG_STATE = "KEY_IN_WRONG_STATE"
    CARD_NUMBER_MALFORMED = "CARD_NUMBER_MALFORMED"
    COUNTER_MALFORMED = "COUNTER_MALFORMED"
    CRYPTOGRAM_MALFORMED = "CRYPTOGRAM_MALFORMED"
    PROVEN = "PROVEN"
    FITS_OTHER_PARAMETERS = "FITS_OTHER_PARAMETERS"
    FITS_NOTHING = "FITS_NOTHING"


class ArqcDataLayout(enum.Enum):
    """Which data elements a card signed, and in which order.

    AS_AGREED is 9F02 9F03 9F1A 95 5F2A 9A 9C 9F37 82 9F36 and bytes 4 to 7 of 9F10 (PBOC 3.0; Visa CVN 10). The
    others are what public profiles, or mistakes of terminals, make of it.
    """

    AS_AGREED = "AS_AGREED"
    # EMV Book 2 8.1.1, minimum set: no card verification results.
    WITHOUT_CVR = "WITHOUT_CVR"
    # Visa CVN 18, EMV CCD: the whole of 9F10.
    WHOLE_IAD = "WHOLE_IAD"
    # M/Chip: six bytes of card verification results, bytes 3 to 8 of 9F10.
    MCHIP_CVR = "MCHIP_CVR"
    # Bytes 5 to 7 of 9F10: without the byte that tells their length.
    CVR_WITHOUT_LENGTH = "CVR_WITHOUT_LENGTH"
    ATC_BEFORE_AIP = "ATC_BEFORE_AIP"
    WITHOUT_AMOUNT_OTHER = "WITHOUT_AMOUNT_OTHER"
    # Asked for before the amount was known.
    AMOUNT_ZERO = "AMOUNT_ZERO"
    # Visa CVN 17, contactless: 9F02 9F37 9F36 and byte 5 of 9F10.
    VISA_CVN_17 = "VISA_CVN_17"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArqcParameters:
    """One way to compute a cryptogram.

    Args:
        key: issuer master key.
        kcv: its check value.
        session_method: None when the card's own key signs, without a session key (Visa CVN 10).
        udk_option: derivation of the card key.
        padding: of the data; AS_AGREED is method 2.
        data: data elements.
        atc: the counter, in the session key and the data.
        psn: two digits, or empty when the card number stood alone.
    """

    key: KeyRef
    kcv: str
    session_method: SessionMethod | None
    udk_option: UdkOption
    padding: Padding
    data: ArqcDataLayout
    atc: int
    psn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArqcExplanation:
    """What was found and, when the cryptogram fits some parameters, which."""

    finding: ArqcFinding
    expected: ArqcParameters | None = None
    fitting: ArqcParameters | None = None


def explain_arqc(
    masters: MasterKeys,
    keys: Sequence[KeyInfo],
    check: ArqcCheck,
    *,
    transaction: TransactionData | None = None,
    iad: bytes = b"",
) -> ArqcExplanation:
    """See ``KeyStore.explain_arqc``.

    Args:
        masters: backend.
        keys: all keys of the store; a bounded number of them is tried.
        check: what was not proven.
        transaction: what ``check.data`` encodes; without it the data stay as they are.
        iad: the whole of tag 9F10, 7 to 32 bytes; without it no layout that needs it is tried.
    """
    try:
        info = masters.require_usable(check.key, KeyUsage.IMK_AC)
    except KeyNotFoundError:
        return ArqcExplanation(finding=ArqcFinding.KEY_UNKNOWN)
    except KeyUsageError:
        return ArqcExplanation(finding=ArqcFinding.KEY_OF_OTHER_USAGE)
    except KeyStateError:
        return ArqcExplanation(finding=ArqcFinding.KEY_IN_WRONG_STATE)
    expected = ArqcParameters(
        key=info.ref,
        kcv=info.kcv,
        session_method=check.session_method,
        udk_option=info.udk_option,
        padding=Padding.ONE_THEN_ZEROS,
        data=ArqcDataLayout.AS_AGREED,
        atc=check.atc,
        psn=check.psn,
    )
    malformed = _malformed(check)
    if malformed is not None:
        return ArqcExplanation(finding=malformed, expected=expected)
    trial = _Trial(masters, check, transaction, iad)
    candidates = _candidates(expected, info, keys, trial)
    for parameters, arqc in itertools.islice(trial.cryptograms(candidates), MACS_MAX):
        if hmac.compare_digest(arqc, check.arqc):
            finding = ArqcFinding.PROVEN if parameters == expected else ArqcFinding.FITS_OTHER_PARAMETERS
            return ArqcExplanation(finding=finding, expected=expected, fitting=parameters)
    return ArqcExplanation(finding=ArqcFinding.FITS_NOTHING, expected=expected)


def _malformed(check: ArqcCheck) -> ArqcFinding | None:
    try:
        udk_factor_of(UdkOption.A)(check.pan, check.psn)
    except ValueError:
        return ArqcFinding.CARD_NUMBER_MALFORMED
    if not 0 <= check.atc <= ATC_MAX:
        return ArqcFinding.COUNTER_MALFORMED
    if len(check.arqc) != ARQC_SIZE:
        return ArqcFinding.CRYPTOGRAM_MALFORMED
    return None


_Change = Callable[[ArqcParameters], ArqcParameters]


def _candidates(
    expected: ArqcParameters, info: KeyInfo, keys: Sequence[KeyInfo], trial: "_Trial"
) -> Iterator[ArqcParameters]:
    """As agreed, then single deviations, then pairs; pairs with another key last, because they are most.

    Each group below is one thing that may be different; a pair takes two different groups.
    """
    groups: list[list[_Change]] = [
        [_changed(session_method=method) for method in (*SessionMethod, None)],
        [_changed(udk_option=option) for option in UdkOption],
        [_changed(padding=padding) for padding in (Padding.ONE_THEN_ZEROS, Padding.ZEROS)],
        [_changed(data=layout) for layout in trial.layouts()],
        [_changed(atc=atc) for atc in _neighbouring_counters(expected.atc)],
        [_changed(psn=psn) for psn in (*PSNS, NO_PSN)],
    ]
    others = [
        _changed(key=other.ref, kcv=other.kcv, udk_option=other.udk_option) for other in _others(info, keys)
    ]
    yield expected
    for change in itertools.chain(others, *groups):
        if (changed := change(expected)) != expected:
            yield changed
    for first, second in itertools.chain(
        itertools.combinations(groups, 2), ((others, group) for group in groups)
    ):
        for one, other in itertools.product(first, second):
            once = one(expected)
            twice = other(once)
            # What is no change of its own was tried before.
            if expected != once != twice != other(expected):
                yield twice


def _changed(**values: object) -> _Change:
    return lambda parameters: replace(parameters, **values)  # type: ignore[arg-type]


def _others(info: KeyInfo, keys: Sequence[KeyInfo]) -> list[KeyInfo]:
    """Other usable issuer master keys, those of the same name first."""
    usable = [
        other
        for other in keys
        if other.usage is KeyUsage.IMK_AC
        and other.state in (KeyState.ACTIVE, KeyState.VERIFY_ONLY)
        and other.ref != info.ref
    ]
    usable.sort(key=lambda other: other.name != info.name)
    return usable[: KEYS_TRIED_MAX - 1]


def _neighbouring_counters(atc: int) -> list[int]:
    """Off by one or two, and with its bytes swapped."""
    swapped = int.from_bytes(atc.to_bytes(2), "little")
    near = [atc + 1, atc - 1, atc + 2, atc - 2]
    return [counter for counter in (*near, swapped) if 0 <= counter <= ATC_MAX]


class _Trial:
    """Computes cryptograms of one card; its card keys go with it."""

    def __init__(
        self, masters: MasterKeys, check: ArqcCheck, transaction: TransactionData | None, iad: bytes
    ) -> None:
        self._masters = masters
        self._check = check
        self._transaction = transaction
        self._iad = iad
        self._card_keys: dict[KeyRef, dict[tuple[UdkOption, str], bytes]] = {}
        self._ciphers: dict[KeyRef, Cipher] = {}

    def layouts(self) -> list[ArqcDataLayout]:
        """The layouts that can be made of what is known."""
        if self._transaction is None:
            return []
        needs_iad = {
            ArqcDataLayout.WHOLE_IAD,
            ArqcDataLayout.MCHIP_CVR,
            ArqcDataLayout.CVR_WITHOUT_LENGTH,
            ArqcDataLayout.VISA_CVN_17,
        }
        return [layout for layout in ArqcDataLayout if len(self._iad) >= 8 or layout not in needs_iad]

    def cryptograms(self, candidates: Iterator[ArqcParameters]) -> Iterator[tuple[ArqcParameters, bytes]]:
        """The cryptogram of each candidate that its cipher and key admit."""
        for parameters in candidates:
            try:
                yield parameters, self._cryptogram(parameters)
            except KEY_REFUSALS:
                # No such session key for this cipher, or another process destroyed the key.
                continue

    def _cryptogram(self, parameters: ArqcParameters) -> bytes:
        udk = self._card_key(parameters)
        cipher = self._ciphers[parameters.key]
        value = udk
        if parameters.session_method is not None:
            factor = session_factor(cipher, parameters.session_method, parameters.atc)
            value = ecb_encryptor(cipher, udk).update(factor)
        session_key = Key(cipher, KeyUsage.SESSION_AC, value)
        mac = mac_algorithm_3 if cipher is Cipher.TDES else mac_algorithm_1
        return mac(session_key, self._data(parameters), padding=parameters.padding, size=ARQC_SIZE)

    def _card_key(self, parameters: ArqcParameters) -> bytes:
        """The card key; all those of one master key come out of one call under it."""
        ref = parameters.key
        if ref not in self._card_keys:
            info = self._masters.require_usable(ref, KeyUsage.IMK_AC)
            kinds = list(itertools.product(UdkOption, dict.fromkeys((self._check.psn, *PSNS, NO_PSN))))
            factors = b"".join([_udk_factor(option, self._check.pan, psn) for option, psn in kinds])
            udks = self._masters.encrypt_under_master(ref, factors)
            starts = range(0, len(udks), _UDK_SIZE)
            self._card_keys[ref] = {
                kind: udks[start : start + _UDK_SIZE] for kind, start in zip(kinds, starts, strict=True)
            }
            self._ciphers[ref] = info.cipher
        return self._card_keys[ref][parameters.udk_option, parameters.psn]

    def _data(self, parameters: ArqcParameters) -> bytes:
        transaction = self._transaction
        if transaction is None:
            return self._check.data
        layout, iad = parameters.data, self._iad
        if layout is ArqcDataLayout.AMOUNT_ZERO:
            transaction = replace(transaction, amount_authorized_minor=0)
        agreed = replace(transaction, atc=parameters.atc).encode()
        # 9F02 6 ‖ 9F03 6 ‖ 9F1A 2 ‖ 95 5 ‖ 5F2A 2 ‖ 9A 3 ‖ 9C 1 ‖ 9F37 4 ‖ 82 2 ‖ 9F36 2 ‖ CVR 4
        amount, number, aip, atc = agreed[:6], agreed[25:29], agreed[29:31], agreed[31:33]
        layouts = {
            ArqcDataLayout.WITHOUT_CVR: agreed[:33],
            ArqcDataLayout.WHOLE_IAD: agreed[:33] + iad,
            ArqcDataLayout.MCHIP_CVR: agreed[:33] + iad[2:8],
            ArqcDataLayout.CVR_WITHOUT_LENGTH: agreed[:33] + iad[4:7],
            ArqcDataLayout.ATC_BEFORE_AIP: agreed[:29] + atc + aip + agreed[33:],
            ArqcDataLayout.WITHOUT_AMOUNT_OTHER: amount + agreed[12:],
            ArqcDataLayout.VISA_CVN_17: amount + number + atc + iad[4:5],
        }
        return layouts.get(layout, agreed)


def _udk_factor(option: UdkOption, pan: str, psn: str) -> bytes:
    """Factor of a card key; without a sequence number the card number fills all 16 digits."""
    if psn != NO_PSN:
        return udk_factor_of(option)(pan, psn)
    # A factor is made of number ‖ sequence number: the number's own last two digits stand in for it.
    return udk_factor_of(option)(pan[:-2].zfill(12), pan[-2:])
