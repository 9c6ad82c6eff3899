"""Components of keys: checked, sealed for the database, combined. Must never keep or print one that is not sealed."""

import hmac
from collections.abc import Sequence

from crypto.errors import KeyComponentInvalidError, SealBrokenError
from crypto.key_components import KeyComponent, combine_components
from crypto.key_store.listed_store import ListedKeyStore
from crypto.keys import Key
from server.errors import MalformedFieldError
from server.keys.shapes import NewVersion

COLUMN = "key_components.component"
SEALING_KEY_NAME = "sealing"


class WrongCheckValueError(Exception):
    """The components do not make the key whose check value was announced."""


def check_value_of(new: NewVersion, component: bytes) -> str:
    """Check value of a component of ``new``.

    Raises:
        MalformedFieldError: not as long as the key, or all zero.
    """
    if len(component) != new.size or not any(component):
        raise MalformedFieldError("component", "must be as long as the key, and not all zero")
    return KeyComponent(new.cipher, component).kcv()


def sealed(store: ListedKeyStore, component: bytes, *, change_id: str, participant_id: str) -> bytes:
    """A component as it is kept: bound to its change and to who brought it, who brings one only."""
    sealer = store.sealer(store.active(SEALING_KEY_NAME))
    return sealer.seal(component, column=COLUMN, row_id=f"{change_id}/{participant_id}")


def opened(store: ListedKeyStore, component: bytes, *, change_id: str, participant_id: str) -> bytes:
    """A component that was sealed.

    Raises:
        SealBrokenError: it was changed, or is another's or of another change.
    """
    sealer = store.sealer(store.active(SEALING_KEY_NAME))
    return sealer.open(component, column=COLUMN, row_id=f"{change_id}/{participant_id}")


def combined(
    store: ListedKeyStore,
    new: NewVersion,
    kept: Sequence[tuple[str, bytes | None]],
    *,
    change_id: str,
    kcv: str,
) -> Key:
    """The key that sealed components make; each comes with who brought it.

    Raises:
        WrongCheckValueError: it is another key than was announced, or none.
    """
    try:
        parts = [
            opened(store, component, change_id=change_id, participant_id=participant_id)
            for participant_id, component in kept
            if component is not None
        ]
        key = combine_components(new.cipher, new.usage, [KeyComponent(new.cipher, part) for part in parts])
    except (KeyComponentInvalidError, SealBrokenError):
        raise WrongCheckValueError from None
    if not hmac.compare_digest(key.kcv(), kcv):
        raise WrongCheckValueError
    return key
