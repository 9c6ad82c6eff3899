"""The text form of our self-contained tokens, and the digest by which the server remembers a used one.

Must never accept two spellings of one token: single use is counted by the digest of the text, so a second
spelling would be a second use.
"""

import base64
import binascii

from cryptography.hazmat.primitives import hashes

TOKEN_DIGEST_SIZE = 16


def encode_token(token: bytes) -> str:
    """base64url without padding (RFC 4648 clause 5)."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii")


def decode_token(text: str, *, size: int) -> bytes:
    """Inverse of ``encode_token`` for tokens of exactly ``size`` bytes.

    Raises:
        ValueError: other characters, another length, or a spelling ``encode_token`` would not have chosen.
    """
    if len(text) != (size * 8 + 5) // 6:
        raise ValueError("token has a wrong length")
    try:
        token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("token is not base64url") from None
    # "+" and "/" and set spare bits decode too: only the one canonical spelling may pass.
    if len(token) != size or encode_token(token) != text:
        raise ValueError("token is not spelled canonically")
    return token


def token_digest(text: str) -> bytes:
    """16 bytes that stand for a card code or challenge token in the table of used ones.

    Args:
        text: the token as received, after it was opened successfully.
    Source: SM3 (GB/T 32905-2016), left 16 bytes.
    """
    digest = hashes.Hash(hashes.SM3())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.finalize()[:TOKEN_DIGEST_SIZE]
