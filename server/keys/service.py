"""The administration of keys: proposals, components, approvals.

Works on the pool with ordinary transactions, because it is rare: a change's row is locked, the key store does its
part, and the row and the audit say so in one transaction. A crash in between is mended by approving again, because
the key store knows a change by its id. Must never let one person alone change a key.
"""

import asyncio
import hmac
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import asyncpg
from onecard.v1 import keys_pb2 as pb

from crypto.key_components import KeyComponent
from crypto.keys import KeyInfo, KeyRef
from server.errors import (
    MalformedFieldError,
    NotFoundError,
    NotGrantedError,
    OneCardError,
    RequestIdReusedError,
    StateConflictError,
)
from server.keys import answers, execution, rules, store
from server.keys.execution import AdministeredKeys, Executed, WrongCheckValueError
from server.keys.proposal import proposal_of
from server.keys.rules import Change, ChangeKind, ChangeState, Proposal, Step
from server.keys.shapes import KeyName, NewVersion
from server.keys.store import SubmittedComponent

COMPONENT_COLUMN = "key_components.component"
# What these rules refuse is a row of the audit; a malformed field or an unknown id is not.
_AUDITED_REFUSALS = (NotGrantedError, StateConflictError)

T = TypeVar("T")


class KeyChanges:
    """The steps that change keys, each for an operator whom the caller has checked."""

    def __init__(self, pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
        self._pool = pool
        self._keys = keys
        self._running: set[asyncio.Task[Any]] = set()

    async def propose(
        self, request: pb.ProposeKeyChangeRequest, *, justification: str, participant_id: str
    ) -> pb.ProposeKeyChangeResponse:
        """Keeps a proposal; ``request`` has its id in canonical form.

        Raises:
            OneCardError: see the RPC.
        """
        proposal, change_id = proposal_of(request), request.request_id
        before = await self._repeated(request, participant_id)
        if before is not None:
            return pb.ProposeKeyChangeResponse(change=answers.change_message(before))
        try:
            await self._keys.ask(lambda: execution.require_possible(self._keys.store, proposal))
        except _AUDITED_REFUSALS as error:
            await self._refused(error, participant_id, change_id, proposal.key, proposal.kind)
        async with store.transaction(self._pool) as connection:
            is_new = await store.insert_change(
                connection,
                proposal,
                change_id=change_id,
                justification=justification,
                request=request.SerializeToString(deterministic=True),
                participant_id=participant_id,
            )
            change, _ = await store.lock_change(connection, change_id)
            assert change is not None, "the proposal is there, ours or a twin's"
            if is_new:
                await self._audit(connection, Step.PROPOSED, change, participant_id, change.kind.value)
        if not is_new:
            _require_same(change, request, participant_id)
        return pb.ProposeKeyChangeResponse(change=answers.change_message(change))

    async def submit_component(
        self, *, change_id: str, request_id: str, component: bytes, participant_id: str
    ) -> pb.SubmitKeyComponentResponse:
        """Keeps a component, sealed, until the change is decided.

        Raises:
            OneCardError: see the RPC.
        """
        refusal: OneCardError | None = None
        async with store.transaction(self._pool) as connection:
            change, given = await self._locked(connection, change_id)
            twin = next((one for one in given if one.request_id == request_id), None)
            if twin is not None:
                kcv = self._require_same_component(change, twin, component, participant_id)
                return _component_answer(change, number=twin.number, kcv=kcv)
            if await store.change_of_component(connection, request_id) is not None:
                raise RequestIdReusedError("change_id")
            try:
                rules.require_component_from(change, participant_id, [one.participant_id for one in given])
            except _AUDITED_REFUSALS as error:
                refusal = error
            else:
                number, kcv = len(given) + 1, _component_kcv(change, component)
                sealed = await self._keys.ask(lambda: self._sealed(component, change_id, number))
                await store.insert_component(
                    connection,
                    change_id,
                    SubmittedComponent(
                        number=number,
                        participant_id=participant_id,
                        request_id=request_id,
                        sealed=sealed,
                        kcv=kcv,
                    ),
                )
                detail = f"component {number} kcv {kcv}"
                await self._audit(connection, Step.COMPONENT_SUBMITTED, change, participant_id, detail)
        if refusal is not None:
            await self._refused_change(refusal, participant_id, change)
        return _component_answer(change, number=number, kcv=kcv)

    async def approve(self, change_id: str, *, participant_id: str) -> pb.ApproveKeyChangeResponse:
        """Carries a change out. Goes on when the caller hangs up: the lock must not be freed half-way.

        Raises:
            OneCardError: see the RPC.
        """
        return await self._to_the_end(self._approve(change_id, participant_id))

    async def reject(self, change_id: str, *, participant_id: str) -> pb.RejectKeyChangeResponse:
        """Ends a change that waits; rejecting again gives the same answer.

        Raises:
            OneCardError: see the RPC.
        """
        refusal: OneCardError | None = None
        async with store.transaction(self._pool) as connection:
            change, _ = await self._locked(connection, change_id)
            is_told_again = change.state is ChangeState.REJECTED and change.decided_by == participant_id
            if not is_told_again:
                keys = await self._keys.ask(self._fresh_keys)
                try:
                    rules.require_rejectable(change, is_carried_out=rules.is_carried_out(change_id, keys))
                except _AUDITED_REFUSALS as error:
                    refusal = error
                else:
                    change = await self._reject(connection, change, participant_id, change.kind.value)
        if refusal is not None:
            await self._refused_change(refusal, participant_id, change)
        return pb.RejectKeyChangeResponse(change=answers.change_message(change))

    async def _approve(self, change_id: str, participant_id: str) -> pb.ApproveKeyChangeResponse:
        refusal: OneCardError | None = None
        async with store.transaction(self._pool) as connection:
            change, given = await self._locked(connection, change_id)
            is_again = rules.is_told_again(change, participant_id)
            try:
                if not is_again:
                    keys = await self._keys.ask(self._fresh_keys)
                    is_carried_out = rules.is_carried_out(change_id, keys)
                    rules.require_approver(change, participant_id, is_carried_out=is_carried_out)
                executed = await self._executed(change, given, is_again=is_again)
            except WrongCheckValueError:
                refusal = StateConflictError("KEY_CHECK_VALUE_WRONG", "the components make another key")
                change = await self._reject(connection, change, participant_id, refusal.reason)
            except _AUDITED_REFUSALS as error:
                refusal = error
            else:
                detail = f"{change.kind.value} kcv {executed.key.kcv}"
                if not is_again:
                    version = executed.key.version
                    await store.decide(
                        connection,
                        change,
                        ChangeState.EXECUTED,
                        participant_id=participant_id,
                        key_version=version,
                    )
                    change = await self._read_again(connection, change)
                    await self._audit(connection, Step.EXECUTED, change, participant_id, detail)
                elif executed.key_block:
                    # Each time a key leaves is a step of its own.
                    await self._audit(connection, Step.EXECUTED, change, participant_id, f"{detail} again")
        if refusal is not None:
            if refusal.reason == "KEY_CHECK_VALUE_WRONG":
                raise refusal
            await self._refused_change(refusal, participant_id, change)
        return pb.ApproveKeyChangeResponse(
            change=answers.change_message(change),
            key=answers.described(executed.key),
            key_block=executed.key_block,
        )

    async def _executed(self, change: Change, given: list[SubmittedComponent], *, is_again: bool) -> Executed:
        """What the change did in the key store, or did before."""
        request = pb.ProposeKeyChangeRequest.FromString(change.request)
        proposal, now_s = proposal_of(request), int(change.now.timestamp())

        def work() -> Executed:
            if is_again and change.kind is not ChangeKind.EXPORT_BLOCK:
                ref = KeyRef(change.key_name, change.key_version)
                return Executed(key=next(info for info in self._fresh_keys() if info.ref == ref))
            return execution.execute(
                self._keys.store,
                proposal,
                change_id=change.change_id,
                components=[self._opened(one, change.change_id) for one in given],
                now_s=now_s,
            )

        return await self._keys.ask(work)

    async def _reject(self, connection: Any, change: Change, participant_id: str, detail: str) -> Change:
        await store.decide(
            connection,
            change,
            ChangeState.REJECTED,
            participant_id=participant_id,
            key_version=change.key_version,
        )
        await self._audit(connection, Step.REJECTED, change, participant_id, detail)
        return await self._read_again(connection, change)

    async def _repeated(self, request: pb.ProposeKeyChangeRequest, participant_id: str) -> Change | None:
        """The change that this very proposal made before.

        Raises:
            RequestIdReusedError: its id stands for another one.
        """
        async with store.transaction(self._pool) as connection:
            change, _ = await store.lock_change(connection, request.request_id)
        if change is not None:
            _require_same(change, request, participant_id)
        return change

    async def _locked(self, connection: Any, change_id: str) -> tuple[Change, list[SubmittedComponent]]:
        change, given = await store.lock_change(connection, change_id)
        if change is None:
            raise NotFoundError("KEY_CHANGE_UNKNOWN", "no such change", field="change_id")
        return change, given

    async def _read_again(self, connection: Any, change: Change) -> Change:
        decided, _ = await store.lock_change(connection, change.change_id)
        assert decided is not None, "changes are never deleted"
        return decided

    async def _audit(
        self, connection: Any, step: Step, change: Change, participant_id: str, detail: str
    ) -> None:
        await store.write_audit(
            connection,
            step,
            participant_id=participant_id,
            change_id=change.change_id,
            key_name=change.key_name,
            key_version=change.key_version,
            detail=detail,
        )

    async def _refused_change(self, error: OneCardError, participant_id: str, change: Change) -> NoReturn:
        key = KeyName(name=change.key_name, version=change.key_version)
        await self._refused(error, participant_id, change.change_id, key, change.kind)

    async def _refused(
        self, error: OneCardError, participant_id: str, change_id: str, key: KeyName, kind: ChangeKind
    ) -> NoReturn:
        """Writes a refusal into the audit, in a transaction of its own, and raises it."""
        async with store.transaction(self._pool) as connection:
            await store.write_audit(
                connection,
                Step.REFUSED,
                participant_id=participant_id,
                change_id=change_id,
                key_name=key.name,
                key_version=key.version,
                detail=f"{kind.value} {error.reason}",
            )
        raise error

    def _fresh_keys(self) -> list[KeyInfo]:
        return execution.fresh_keys(self._keys.store)

    def _sealed(self, component: bytes, change_id: str, number: int) -> bytes:
        sealer = self._keys.store.sealer(self._keys.store.active("sealing"))
        return sealer.seal(component, column=COMPONENT_COLUMN, row_id=f"{change_id}/{number}")

    def _opened(self, component: SubmittedComponent, change_id: str) -> bytes:
        assert component.sealed is not None, "components are kept until the change is decided"
        sealer = self._keys.store.sealer(self._keys.store.active("sealing"))
        return sealer.open(
            component.sealed, column=COMPONENT_COLUMN, row_id=f"{change_id}/{component.number}"
        )

    def _require_same_component(
        self, change: Change, twin: SubmittedComponent, component: bytes, participant_id: str
    ) -> str:
        """Check value of the component that this request id brought before.

        Raises:
            RequestIdReusedError: it was another one, or another's.
        """
        if twin.participant_id != participant_id:
            raise RequestIdReusedError("caller")
        kcv = _component_kcv(change, component)
        # Once the change is decided only the check value is left to compare.
        if kcv != twin.kcv or (
            twin.sealed is not None
            and not hmac.compare_digest(self._opened(twin, change.change_id), component)
        ):
            raise RequestIdReusedError("component")
        return kcv

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work, name="key-change")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)


def _require_same(change: Change, request: pb.ProposeKeyChangeRequest, participant_id: str) -> None:
    """
    Raises:
        RequestIdReusedError: the id stands for another proposal; names what differs.
    """
    if change.proposed_by != participant_id:
        raise RequestIdReusedError("caller")
    # Messages are compared, not bytes: another release may serialise the same content otherwise.
    stored = pb.ProposeKeyChangeRequest.FromString(change.request)
    if stored.justification != request.justification:
        raise RequestIdReusedError("justification")
    if stored != request:
        raise RequestIdReusedError("change")


def _new_version_of(change: Change) -> NewVersion:
    new = _stored_proposal(change).new
    if new is None:
        raise StateConflictError("KEY_CHANGE_STATE", "the change takes no components")
    return new


def _stored_proposal(change: Change) -> Proposal:
    return proposal_of(pb.ProposeKeyChangeRequest.FromString(change.request))


def _component_kcv(change: Change, component: bytes) -> str:
    """Check value of a component.

    Raises:
        MalformedFieldError: not as long as the key, or all zero.
    """
    new = _new_version_of(change)
    if len(component) != new.size or not any(component):
        raise MalformedFieldError("component", "must be as long as the key, and not all zero")
    return KeyComponent(new.cipher, component).kcv()


def _component_answer(change: Change, *, number: int, kcv: str) -> pb.SubmitKeyComponentResponse:
    # By the number of this component and not of those there are: a repetition is told the same.
    return pb.SubmitKeyComponentResponse(
        component_kcv=kcv, components_missing=change.components_needed - number
    )
