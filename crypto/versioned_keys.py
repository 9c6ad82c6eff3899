"""Several versions of one key at work: one generates, and every one that may verify still opens what it made.

What a key store hands out lives as long as a server does, while keys rotate under it: the store puts the new
versions in its place, and nobody has to ask again. Must never generate under a version that is not active.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Generic, TypeVar

from crypto.errors import KeyNotFoundError, KeyStateError
from crypto.keys import Key, KeyRef, KeyUsage

T = TypeVar("T")


class VersionedKeys(Generic[T]):
    """The versions of one name, each opened as a ``T``.

    Args:
        ref: the version that generates.
        keys: every version that may verify, ``ref`` among them; versions are 1 to 255.
        renew: asks the key store for newer versions, True when there were; called when an unknown version is
            met, because another process may have made it a moment ago.
    Raises:
        KeyNotFoundError: ``ref`` is not among the versions, or one is out of bounds.
        KeyUsageError: a key of another usage.
    """

    __slots__ = ("__weakref__", "_renew", "_state", "name")

    usage: ClassVar[KeyUsage]

    def __init__(
        self, ref: KeyRef, keys: Mapping[int, Key], *, renew: Callable[[], bool] | None = None
    ) -> None:
        if ref.version not in keys or not all(1 <= version <= 255 for version in keys):
            raise KeyNotFoundError(f"key {ref.name} has no version {ref.version} between 1 and 255")
        self.name = ref.name
        self._renew = renew
        # One attribute, replaced whole: other threads read both parts together.
        self._state: tuple[int | None, dict[int, T]]
        self.replace_keys(ref.version, keys)

    def replace_keys(self, generating: int | None, keys: Mapping[int, Key]) -> None:
        """Puts other versions in the place of those held.

        Args:
            generating: the version that generates; None when none is active.
            keys: every version that may verify.
        """
        for key in keys.values():
            key.require(self.usage)
        self._state = (generating, {version: self._opened(key) for version, key in keys.items()})

    def _opened(self, key: Key) -> T:
        raise NotImplementedError

    def _generating(self) -> tuple[int, T]:
        """The version to generate under.

        Raises:
            KeyStateError: none is active.
        """
        version, opened = self._state
        if version is None:
            raise KeyStateError(f"key {self.name} has no active version")
        return version, opened[version]

    def _met_unknown(self, version: int) -> T | None:
        """Looks once more after asking the key store; ``version`` is not among those held."""
        if self._renew is None or not self._renew():
            return None
        return self._state[1].get(version)
