"""What may be done with keys, by whom and when: decided from facts alone, without I/O and without a clock."""

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from crypto.key_store.lifecycle import ALWAYS_ACTIVE_USAGES, SINGLE_VERSION_USAGES, USABLE_STATES, VERSION_MAX
from crypto.keys import Cipher, Exportability, KeyInfo, KeyState, KeyUsage, UdkOption
from server.cards.directory import AC_KEY_NAMES, SS_KEY_NAMES
from server.errors import MalformedFieldError, NotFoundError, NotGrantedError, StateConflictError
from server.keys.shapes import NOT_ADMINISTERED, KeyName, NewVersion

PROPOSAL_LIFE = timedelta(hours=24)
# How long an answer that was lost may be asked for once more.
REPETITION_LIFE = timedelta(minutes=10)
# An approval that is not carried out by then was interrupted.
FINISHING_DELAY = timedelta(minutes=1)
PIN_KEY_NAME = "pvk"
# Names, besides usages, that the core itself works under: without an active version no card and no PIN is issued.
CORE_KEY_NAMES = frozenset({PIN_KEY_NAME, *AC_KEY_NAMES.values(), *SS_KEY_NAMES.values()})


class ChangeKind(enum.Enum):
    """What a change of keys is."""

    GENERATE = "GENERATE"
    IMPORT_COMPONENTS = "IMPORT_COMPONENTS"
    IMPORT_BLOCK = "IMPORT_BLOCK"
    EXPORT_BLOCK = "EXPORT_BLOCK"
    ACTIVATE = "ACTIVATE"
    ROTATE = "ROTATE"
    RETIRE = "RETIRE"
    DESTROY = "DESTROY"
    CANCEL_DESTRUCTION = "CANCEL_DESTRUCTION"


class ChangeState(enum.Enum):
    """How far a change is."""

    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    EXECUTED = "EXECUTED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class Step(enum.Enum):
    """What the audit tells."""

    PROPOSED = "PROPOSED"
    COMPONENT_SUBMITTED = "COMPONENT_SUBMITTED"
    APPROVED = "APPROVED"
    EXECUTED = "EXECUTED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    DESTROYED = "DESTROYED"
    EXPLAINED = "EXPLAINED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change as it was proposed; what does not belong to its kind is empty.

    Args:
        kind: what it is.
        key: the key it is about; version 0 while it is not yet made.
        new: what to make or to bring in by components.
        components: how many.
        kcv: check value of the whole key.
        key_block: key block to bring in.
        under: key-block protection key; version 0, the active one, only until the proposal is pinned.
        udk_option: option of a key that comes as a block; None: not given.
    """

    kind: ChangeKind
    key: KeyName
    new: NewVersion | None = None
    components: int = 0
    kcv: str = ""
    key_block: str = ""
    under: KeyName | None = None
    udk_option: UdkOption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change as the database has it; ``now`` is the database's time when it was read."""

    change_id: str
    change_number: int
    kind: ChangeKind
    key_name: str
    key_version: int
    components_needed: int
    components_given: int
    state: ChangeState
    justification: str
    request: bytes
    details: tuple[str, ...]
    under_version: int
    proposed_by: str
    proposed_at: datetime
    decided_by: str
    decided_at: datetime | None
    now: datetime


def key_unknown() -> NotFoundError:
    return NotFoundError("KEY_UNKNOWN", "no key of that name and version")


def wrong_key_state(message: str = "the key's state does not admit this") -> StateConflictError:
    return StateConflictError("KEY_STATE", message)


def wrong_key_usage(message: str = "the key is for something else") -> StateConflictError:
    return StateConflictError("KEY_USAGE", message)


def key_in_use(message: str) -> StateConflictError:
    return StateConflictError("KEY_IN_USE", message)


def _one_version_only() -> StateConflictError:
    return wrong_key_state("keys of this usage have one version only: what is stored would be lost")


def wrong_change_state(message: str) -> StateConflictError:
    return StateConflictError("KEY_CHANGE_STATE", message)


def _second_person(message: str) -> NotGrantedError:
    return NotGrantedError("SECOND_PERSON_REQUIRED", message)


def require_approver(change: Change, participant_id: str) -> None:
    """Admits an approval by another operator of a change that waits, in time and with all its components.

    Also of one that is approved already: its approval was interrupted, and is completed; time no longer counts.

    Raises:
        NotGrantedError: the proposer's own.
        StateConflictError: decided, too late, or without its components.
    """
    if participant_id == change.proposed_by:
        raise _second_person("a change is approved by another operator than the one who proposed it")
    if change.state is ChangeState.APPROVED:
        return
    require_waiting(change)
    if change.components_given < change.components_needed:
        raise wrong_change_state("the change lacks components")


def require_waiting(change: Change) -> None:
    """
    Raises:
        StateConflictError: the change is decided, or its time is over.
    """
    require_undecided(change)
    if change.now >= change.proposed_at + PROPOSAL_LIFE:
        raise wrong_change_state("the change has expired")


def require_undecided(change: Change) -> None:
    """
    Raises:
        StateConflictError: the change is decided.
    """
    if change.state is not ChangeState.PROPOSED:
        raise wrong_change_state(f"the change is {change.state.value.lower()}")


def require_component_from(change: Change, participant_id: str, givers: Collection[str]) -> None:
    """Admits one more component, from an operator who has brought none.

    Raises:
        StateConflictError: the change takes none, or no more.
        NotGrantedError: the operator's second.
    """
    if not change.components_needed:
        raise wrong_change_state("the change takes no components")
    require_waiting(change)
    if len(givers) >= change.components_needed:
        raise wrong_change_state("the change has all its components")
    if participant_id in givers:
        raise _second_person("each component is brought by another operator")


def is_told_again(change: Change, participant_id: str) -> bool:
    """Whether an approval is the repetition, in time, of the one by which the change was carried out."""
    return (
        change.state is ChangeState.EXECUTED
        and change.decided_by == participant_id
        and change.decided_at is not None
        and change.now < change.decided_at + REPETITION_LIFE
    )


def pinned(proposal: Proposal, keys: Sequence[KeyInfo]) -> Proposal:
    """The proposal with the version of its protecting key: what is active later is not what was proposed.

    Raises:
        NotFoundError, StateConflictError: see ``require_possible``.
        MalformedFieldError: a key would leave under itself.
    """
    if proposal.under is None:
        return proposal
    is_export = proposal.kind is ChangeKind.EXPORT_BLOCK
    info = _protection_key(proposal.under, keys, is_export=is_export)
    under = KeyName(name=info.name, version=info.version)
    if under == proposal.key:
        raise MalformedFieldError("export_block.under", "must be another key")
    return replace(proposal, under=under)


def require_possible(proposal: Proposal, keys: Sequence[KeyInfo]) -> None:
    """Refuses a proposal that could not be carried out as things are.

    Args:
        proposal: what is proposed.
        keys: every version in the key store.
    Raises:
        NotFoundError: it is about a key that is not there.
        StateConflictError: the key's state or usage forbids it.
    """
    if proposal.under is not None:
        _protection_key(proposal.under, keys, is_export=proposal.kind is ChangeKind.EXPORT_BLOCK)
    if proposal.new is not None:
        require_fitting(proposal.key.name, proposal.new.usage, proposal.new.cipher, keys)
        return
    if proposal.kind is ChangeKind.IMPORT_BLOCK:
        return
    if proposal.kind is ChangeKind.ROTATE:
        active = active_version(proposal.key.name, keys)
        require_administered(active)
        require_fitting(active.name, active.usage, active.cipher, keys)
        return
    info = named(proposal.key, keys)
    require_administered(info)
    _REQUIRED[proposal.kind](info)


def require_fitting(name: str, usage: KeyUsage, cipher: Cipher, keys: Sequence[KeyInfo]) -> None:
    """
    Raises:
        StateConflictError: the name's versions are for something else, or used up.
    """
    versions = [info for info in keys if info.name == name]
    if any((info.usage, info.cipher) != (usage, cipher) for info in versions):
        raise wrong_key_usage("the versions of this name have another usage or algorithm")
    if versions and usage in SINGLE_VERSION_USAGES:
        raise _one_version_only()
    if max((info.version for info in versions), default=0) >= VERSION_MAX:
        raise wrong_key_state("the name has used up its versions")


def require_administered(info: KeyInfo) -> None:
    """
    Raises:
        StateConflictError: a key that operators do not administer.
    """
    if info.usage in NOT_ADMINISTERED:
        raise wrong_key_usage("keys of this usage are not administered")


def require_exportable(info: KeyInfo) -> None:
    """
    Raises:
        StateConflictError: it may not leave, or is destroyed.
    """
    # Before its activation too: two parties exchange a key first, and put it into use then.
    if info.state is KeyState.DESTROYED:
        raise wrong_key_state()
    if info.exportability is not Exportability.EXPORTABLE:
        raise wrong_key_usage("the key may not leave the key store")


def _require_pre_active(info: KeyInfo) -> None:
    if info.state is not KeyState.PRE_ACTIVE or info.destroy_at_s is not None:
        raise wrong_key_state()


def _require_retirable(info: KeyInfo) -> None:
    if info.state is not KeyState.ACTIVE:
        raise wrong_key_state()
    if info.usage in SINGLE_VERSION_USAGES:
        raise _one_version_only()
    if info.usage in ALWAYS_ACTIVE_USAGES or info.name in CORE_KEY_NAMES:
        raise wrong_key_state("the core itself works under this key: rotate it instead")


def _require_destructible(info: KeyInfo) -> None:
    if info.state not in (KeyState.PRE_ACTIVE, KeyState.VERIFY_ONLY) or info.destroy_at_s is not None:
        raise wrong_key_state()
    if info.usage is KeyUsage.SEALING:
        raise key_in_use("sealed columns do not tell which version they are under: sealing keys stay")


def _require_to_be_destroyed(info: KeyInfo) -> None:
    if info.state is KeyState.DESTROYED or info.destroy_at_s is None:
        raise wrong_key_state("no destruction of this key is planned")


_REQUIRED = {
    ChangeKind.EXPORT_BLOCK: require_exportable,
    ChangeKind.ACTIVATE: _require_pre_active,
    ChangeKind.RETIRE: _require_retirable,
    ChangeKind.DESTROY: _require_destructible,
    ChangeKind.CANCEL_DESTRUCTION: _require_to_be_destroyed,
}


def _protection_key(under: KeyName, keys: Sequence[KeyInfo], *, is_export: bool) -> KeyInfo:
    info = active_version(under.name, keys) if under.version == 0 else named(under, keys)
    if info.usage is not KeyUsage.KEY_BLOCK_PROTECTION:
        raise wrong_key_usage("the protecting key is for something else")
    if info.state not in ((KeyState.ACTIVE,) if is_export else USABLE_STATES):
        raise wrong_key_state("the protecting key may not do this")
    return info


def named(key: KeyName, keys: Sequence[KeyInfo]) -> KeyInfo:
    """
    Raises:
        NotFoundError: no such version.
    """
    for info in keys:
        if (info.name, info.version) == (key.name, key.version):
            return info
    raise key_unknown()


def active_version(name: str, keys: Sequence[KeyInfo]) -> KeyInfo:
    """
    Raises:
        NotFoundError: no such name.
        StateConflictError: no version of it is active.
    """
    versions = [info for info in keys if info.name == name]
    if not versions:
        raise key_unknown()
    for info in versions:
        if info.state is KeyState.ACTIVE:
            return info
    raise wrong_key_state("no version of the key is active")
