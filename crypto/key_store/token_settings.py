"""Which token, and what its vendor calls things. Must never hold the PIN: only where it is."""

import enum
from dataclasses import dataclass
from pathlib import Path

CALL_TIMEOUT_MS = 500
DES3_ECB_ENCRYPT_DATA = 0x1102
AES_ECB_ENCRYPT_DATA = 0x1104


class TokenMode(enum.Enum):
    """What leaves the token.

    BATCH: the keys of cards, of a whole batch in one call, for one check each. STRICT: of AES and 3DES masters
    only cryptograms and answers; everything between is derived in the token. What needs a card key outside, issuer
    scripts and the diagnosis of a cryptogram, is refused in strict mode.
    """

    BATCH = "batch"
    STRICT = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """How a PKCS#11 token is reached.

    Args:
        module: path of the PKCS#11 module; also of p11-kit's proxy or client.
        pin_file: file that holds the user's PIN, for its owner only.
        label: label of the token, when ``slot`` is None.
        slot: number of the slot.
        mode: what leaves the token.
        timeout_ms: longest wait for one call.
        sm4_mechanism: vendor's number of SM4 in ECB; 0 when the token has no SM4.
        sm4_key_type: vendor's number of SM4 keys; 0 when the token has no SM4.
        tdes_derive_mechanism: derivation by 3DES in ECB, CKM_DES3_ECB_ENCRYPT_DATA or the vendor's own.
        aes_derive_mechanism: derivation by AES in ECB, CKM_AES_ECB_ENCRYPT_DATA or the vendor's own.
    """

    module: Path
    pin_file: Path
    label: str = "onecard"
    slot: int | None = None
    mode: TokenMode = TokenMode.BATCH
    timeout_ms: int = CALL_TIMEOUT_MS
    sm4_mechanism: int = 0
    sm4_key_type: int = 0
    tdes_derive_mechanism: int = DES3_ECB_ENCRYPT_DATA
    aes_derive_mechanism: int = AES_ECB_ENCRYPT_DATA

    @property
    def token_name(self) -> str:
        """What messages call the token."""
        return f"token {self.label!r}" if self.slot is None else f"token in slot {self.slot}"
