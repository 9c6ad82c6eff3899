"""The keys a fresh store draws: one of every kind, so that the embedded default serves everything at once.

Production draws or imports its own, by two operators. Must never name a key that a bank would use as its own.
"""

from collections.abc import Mapping

from crypto.keys import Cipher, KeyUsage

_CIPHERS = {"sm4": Cipher.SM4, "tdes": Cipher.TDES, "aes": Cipher.AES}
_OF_EACH_CIPHER = {
    "imk-ac": KeyUsage.IMK_AC,
    "imk-smi": KeyUsage.IMK_SMI,
    "imk-smc": KeyUsage.IMK_SMC,
    "ss-auth": KeyUsage.SS_AUTHENTICATION_PROVINCE,
    "zpk": KeyUsage.PIN_ENCRYPTION,
    "bdk": KeyUsage.BDK,
    "kbpk": KeyUsage.KEY_BLOCK_PROTECTION,
}

DEVELOPMENT_KEYS: Mapping[str, tuple[Cipher, KeyUsage]] = {
    **{
        f"{name}-{suffix}": (cipher, usage)
        for name, usage in _OF_EACH_CIPHER.items()
        for suffix, cipher in _CIPHERS.items()
    },
    "pvk": (Cipher.SM4, KeyUsage.PIN_VERIFICATION_IBM3624),
    "cvk": (Cipher.TDES, KeyUsage.CARD_VERIFICATION),
    "mac-sm4": (Cipher.SM4, KeyUsage.MAC_CMAC),
    "mac-unionpay-sm4": (Cipher.SM4, KeyUsage.MAC_UNIONPAY),
    "card-code": (Cipher.HMAC_SM3, KeyUsage.CARD_CODE),
    "challenge": (Cipher.HMAC_SM3, KeyUsage.CHALLENGE),
    "sealing": (Cipher.SM4, KeyUsage.SEALING),
    "blind-index": (Cipher.HMAC_SM3, KeyUsage.BLIND_INDEX),
    "request-digest": (Cipher.HMAC_SM3, KeyUsage.REQUEST_DIGEST),
    "identification-code": (Cipher.SM4, KeyUsage.IDENTIFICATION_CODE),
}
