"""What an approved change does in the key store. Blocking: runs in a thread, because files are written and synced.

Every step may be repeated: the store knows a change by its id, and a state that is reached stays. Must never return a
key or a component.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from crypto.errors import (
    KeyBlockInvalidError,
    KeyNotFoundError,
    KeyStateError,
    KeyStoreError,
    KeyStoreUnavailableError,
    KeyUsageError,
    SealBrokenError,
)
from crypto.key_block import unwrap_key, wrap_key
from crypto.key_store.lifecycle import DESTRUCTION_GRACE_S
from crypto.key_store.listed_store import ListedKeyStore
from crypto.keys import Exportability, Key, KeyInfo, KeyRef, KeyUsage
from server.errors import MalformedFieldError
from server.key_calls import KeyCalls, key_store_unavailable
from server.keys import components, rules
from server.keys.details import details_of, details_of_block
from server.keys.rules import ChangeKind, Proposal
from server.keys.shapes import NOT_ADMINISTERED, udk_option_of

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """A proposal that could be carried out: pinned, and described for the second operator."""

    proposal: Proposal
    details: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A change to carry out.

    Args:
        proposal: what was proposed, pinned.
        change_id: by which the store recognises a repetition.
        kept: components of a key that is imported, sealed, each with who brought it.
        now_s: unix seconds of the approval, by the database.
    """

    proposal: Proposal
    change_id: str
    kept: Sequence[tuple[str, bytes | None]]
    now_s: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Executed:
    """The key version as it is now, and for an export its key block."""

    key: KeyInfo
    key_block: str = ""


class AdministeredKeys:
    """The key store, asked from a thread: it reads, writes and syncs files, or waits for a token."""

    def __init__(self, store: ListedKeyStore, keys: KeyCalls) -> None:
        self.store = store
        self._keys = keys

    async def refresh(self) -> None:
        """Takes over what other processes changed; a ``PeriodicReader`` calls it.

        Raises:
            UnavailableError: the store does not answer; what was known stays.
        """
        await self._keys.ask(lambda: _authentic(self.store.refresh))

    async def ask(self, function: Callable[[], T]) -> T:
        """What ``function`` gives, which calls the store.

        Raises:
            UnavailableError: it does not answer.
        """
        if self.store.is_blocking:
            return await self._keys.ask(lambda: _authentic(function))
        # What never waits is asked on the event loop elsewhere; a change of keys writes files and does wait.
        try:
            return await asyncio.to_thread(_authentic, function)
        except KeyStoreError as error:
            log.error("key store: %s", error)
            raise key_store_unavailable() from None


def _authentic(function: Callable[[], T]) -> T:
    """What ``function`` gives; a list of keys that somebody changed is one that cannot be used, and no bug."""
    try:
        return function()
    except SealBrokenError as error:
        raise KeyStoreUnavailableError(f"the list of keys is not authentic: {error}") from None


def fresh_keys(store: ListedKeyStore) -> list[KeyInfo]:
    """All keys, with what other processes changed a moment ago."""
    store.refresh()
    return store.describe()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns what a key store refuses into the operating errors that callers see.

    Raises:
        NotFoundError: no such key.
        StateConflictError: the key's usage or state forbids it.
    """
    try:
        yield
    except KeyNotFoundError:
        raise rules.key_unknown() from None
    except KeyUsageError:
        raise rules.wrong_key_usage() from None
    except KeyStateError:
        raise rules.wrong_key_state() from None


def possible(store: ListedKeyStore, proposal: Proposal) -> Possible:
    """What would be carried out, as things are.

    Raises:
        NotFoundError, StateConflictError: see ``rules.require_possible``.
        MalformedFieldError: the key block does not open, or a key would leave under itself.
        KeyStoreError: the store does not answer.
    """
    with refusals():
        keys = fresh_keys(store)
        rules.require_possible(proposal, keys)
        proposal = rules.pinned(proposal, keys)
        if proposal.kind is not ChangeKind.IMPORT_BLOCK:
            return Possible(proposal=proposal, details=details_of(proposal, keys))
        try:
            key, exportability = _unwrapped(store, proposal)
        except KeyBlockInvalidError:
            raise MalformedFieldError("import_block.key_block", "is no key block under this key") from None
        option = udk_option_of("import_block.card_key_option", key.usage, proposal.udk_option)
        rules.require_fitting(proposal.key.name, key.usage, key.cipher, keys)
        details = details_of_block(proposal, key, exportability=exportability, udk_option=option)
        return Possible(proposal=proposal, details=details)


def require_possible(store: ListedKeyStore, work: Work) -> None:
    """Refuses to approve what can no longer be carried out.

    Raises:
        WrongCheckValueError: the components do not make the announced key.
        NotFoundError, StateConflictError: the key's usage or state forbids it now.
        KeyStoreError: the store does not answer.
    """
    try:
        possible(store, work.proposal)
    except MalformedFieldError:
        # It opened when it was proposed: the protecting key is gone.
        raise rules.wrong_key_state("the key block no longer opens under this key") from None
    if work.proposal.new is not None and work.kept:
        _combined(store, work)


def execute(store: ListedKeyStore, work: Work) -> Executed:
    """Carries a change out, or tells once more what it did.

    Raises:
        WrongCheckValueError: the components do not make the announced key.
        NotFoundError, StateConflictError: the key's usage or state forbids it now.
        KeyStoreError: the store does not answer.
    """
    with refusals():
        store.refresh()
        if work.proposal.kind is ChangeKind.EXPORT_BLOCK:
            return _export(store, work.proposal)
        return Executed(key=_changed(store, work))


def _changed(store: ListedKeyStore, work: Work) -> KeyInfo:
    proposal = work.proposal
    kind, name, ref = proposal.kind, proposal.key.name, KeyRef(proposal.key.name, proposal.key.version)
    if kind is ChangeKind.ROTATE:
        return store.rotate(name, change_id=work.change_id)
    if kind is ChangeKind.ACTIVATE:
        return store.activate(ref)
    if kind is ChangeKind.RETIRE:
        return store.retire(ref)
    if kind is ChangeKind.DESTROY:
        return store.schedule_destruction(ref, work.now_s + DESTRUCTION_GRACE_S)
    if kind is ChangeKind.CANCEL_DESTRUCTION:
        return store.cancel_destruction(ref)
    if kind is ChangeKind.IMPORT_BLOCK:
        return _import_block(store, proposal, work.change_id)
    new = proposal.new
    assert new is not None, "this kind of change makes a key version"
    if kind is ChangeKind.GENERATE:
        return store.generate(
            name,
            cipher=new.cipher,
            usage=new.usage,
            size=new.size,
            udk_option=new.udk_option,
            exportability=new.exportability,
            change_id=work.change_id,
        )
    assert kind is ChangeKind.IMPORT_COMPONENTS, "every kind is carried out"
    return store.install(
        name,
        _combined(store, work),
        udk_option=new.udk_option,
        exportability=new.exportability,
        change_id=work.change_id,
    )


def _combined(store: ListedKeyStore, work: Work) -> Key:
    new = work.proposal.new
    assert new is not None, "components make a key version"
    return components.combined(store, new, work.kept, change_id=work.change_id, kcv=work.proposal.kcv)


def _import_block(store: ListedKeyStore, proposal: Proposal, change_id: str) -> KeyInfo:
    try:
        key, exportability = _unwrapped(store, proposal)
    except KeyBlockInvalidError:
        # It opened when it was proposed: the protecting key is another version now.
        raise rules.wrong_key_state("the key block no longer opens under this key") from None
    return store.install(
        proposal.key.name,
        key,
        udk_option=udk_option_of("import_block.card_key_option", key.usage, proposal.udk_option),
        exportability=exportability,
        change_id=change_id,
    )


def _unwrapped(store: ListedKeyStore, proposal: Proposal) -> tuple[Key, Exportability]:
    unwrapped = unwrap_key(_protection_key(store, proposal, generating=False), proposal.key_block)
    if unwrapped.key.usage in NOT_ADMINISTERED:
        raise KeyUsageError("keys of this usage are not administered")
    return unwrapped.key, unwrapped.header.exportability


def _export(store: ListedKeyStore, proposal: Proposal) -> Executed:
    """Wraps the key anew each time: a block is random inside, and none is kept."""
    ref = KeyRef(proposal.key.name, proposal.key.version)
    info = rules.named(proposal.key, store.describe())
    rules.require_exportable(info)
    kbpk = _protection_key(store, proposal, generating=True)
    key = store.open_to_export(ref)
    return Executed(key=info, key_block=wrap_key(kbpk, key, exportability=info.exportability))


def _protection_key(store: ListedKeyStore, proposal: Proposal, *, generating: bool) -> Key:
    under = proposal.under
    assert under is not None, "a key block has a protecting key"
    assert under.version, "its version is pinned when it is proposed"
    ref = KeyRef(under.name, under.version)
    return store.open_key(ref, KeyUsage.KEY_BLOCK_PROTECTION, generating=generating)
