"""Why a cryptogram was not proven: the question operators ask, answered by trying what goes wrong.

Callers of the service are told one code whatever the reason. Must never return a key, a cryptogram that would
have been right, or a card number.
"""

import enum
import hmac
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crypto.blocks import ecb_encryptor
from crypto.cryptogram import ARQC_SIZE
from crypto.diversification import SessionMethod, session_factor, udk_factor_of
from crypto.errors import KeyNotFoundError, KeyStateError, KeyUsageError
from crypto.key_store.batches import MasterKeys
from crypto.key_store.checks import ArqcCheck
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption
from crypto.macs import Padding, mac_algorithm_1, mac_algorithm_3

KEYS_TRIED_MAX = 32


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArqcParameters:
    """One way to compute a cryptogram."""

    key: KeyRef
    kcv: str
    session_method: SessionMethod
    udk_option: UdkOption
    padding: Padding


@dataclass(frozen=True, slots=True, kw_only=True)
class ArqcExplanation:
    """What was found and, when the cryptogram fits some parameters, which."""

    finding: ArqcFinding
    expected: ArqcParameters | None = None
    fitting: ArqcParameters | None = None


def explain_arqc(masters: MasterKeys, keys: Sequence[KeyInfo], check: ArqcCheck) -> ArqcExplanation:
    """See ``KeyStore.explain_arqc``: tries the named key, then a bounded number of other master keys."""
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
    )
    malformed = _malformed(check)
    if malformed is not None:
        return ArqcExplanation(finding=malformed, expected=expected)
    others = [
        other
        for other in keys
        if other.usage is KeyUsage.IMK_AC
        and other.state in (KeyState.ACTIVE, KeyState.VERIFY_ONLY)
        and other.ref != info.ref
    ]
    for candidate in [info, *others[: KEYS_TRIED_MAX - 1]]:
        for parameters, arqc in _cryptograms(masters, candidate, check):
            if hmac.compare_digest(arqc, check.arqc):
                is_expected = parameters == expected
                finding = ArqcFinding.PROVEN if is_expected else ArqcFinding.FITS_OTHER_PARAMETERS
                return ArqcExplanation(finding=finding, expected=expected, fitting=parameters)
    return ArqcExplanation(finding=ArqcFinding.FITS_NOTHING, expected=expected)


def _malformed(check: ArqcCheck) -> ArqcFinding | None:
    try:
        udk_factor_of(UdkOption.A)(check.pan, check.psn)
    except ValueError:
        return ArqcFinding.CARD_NUMBER_MALFORMED
    if not 0 <= check.atc <= 0xFFFF:
        return ArqcFinding.COUNTER_MALFORMED
    if len(check.arqc) != ARQC_SIZE:
        return ArqcFinding.CRYPTOGRAM_MALFORMED
    return None


def _cryptograms(
    masters: MasterKeys, info: KeyInfo, check: ArqcCheck
) -> Iterator[tuple[ArqcParameters, bytes]]:
    """Every way a card of this key might have computed it, the agreed way of the key first."""
    options = sorted(UdkOption, key=lambda option: option is not info.udk_option)
    methods = sorted(SessionMethod, key=lambda method: method is not check.session_method)
    paddings = (Padding.ONE_THEN_ZEROS, Padding.ZEROS)
    for option, method in itertools.product(options, methods):
        try:
            factor = session_factor(info.cipher, method, check.atc)
        except KeyUsageError:
            continue
        udk = masters.encrypt_under_master(info.ref, udk_factor_of(option)(check.pan, check.psn))
        value = ecb_encryptor(info.cipher, udk).update(factor)
        session_key = Key(info.cipher, KeyUsage.SESSION_AC, value)
        mac = mac_algorithm_3 if info.cipher is Cipher.TDES else mac_algorithm_1
        for padding in paddings:
            parameters = ArqcParameters(
                key=info.ref, kcv=info.kcv, session_method=method, udk_option=option, padding=padding
            )
            yield parameters, mac(session_key, check.data, padding=padding, size=ARQC_SIZE)
