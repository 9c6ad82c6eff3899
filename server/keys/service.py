"""Changes of keys before they are approved: proposals, components, rejections.

Works on the pool with ordinary transactions, because it is rare. The key store is asked before a transaction begins,
never inside one. Must never let one person alone change a key.
"""

import hmac
from typing import Any

import asyncpg
from onecard.v1 import keys_pb2 as pb

from crypto.errors import SealBrokenError
from server.database.pool import own_transaction
from server.errors import OneCardError, RequestIdReusedError
from server.keys import answers, components, execution, record, rules, store
from server.keys.details import audit_text
from server.keys.execution import AdministeredKeys
from server.keys.proposal import proposal_of
from server.keys.record import AUDITED_REFUSALS
from server.keys.rules import Change, ChangeKind, ChangeState, Proposal, Step
from server.keys.shielded import ShieldedTasks
from server.keys.store import SubmittedComponent


class KeyChanges:
    """The steps that lead to a change of keys, each for an operator whom the caller has checked."""

    def __init__(self, pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
        self._pool = pool
        self._keys = keys
        self._tasks = ShieldedTasks()

    async def propose(
        self, request: pb.ProposeKeyChangeRequest, *, justification: str, participant_id: str
    ) -> pb.ProposeKeyChangeResponse:
        """Keeps a proposal; ``request`` has its id in canonical form. Goes on when the caller hangs up: whether a key
        is still needed may take minutes to find out.

        Raises:
            OneCardError: see the RPC.
        """
        change = await self._repeated(request, participant_id)
        if change is None:
            work = self._propose(request, proposal_of(request), justification, participant_id)
            change = await self._tasks.run(work)
        return pb.ProposeKeyChangeResponse(change=answers.change_message(change))

    async def submit_component(
        self, *, change_id: str, request_id: str, component: bytes, participant_id: str
    ) -> pb.SubmitKeyComponentResponse:
        """Keeps a component, sealed, until the change has ended.

        Raises:
            OneCardError: see the RPC.
        """
        key_store = self._keys.store
        sealed = await self._keys.ask(
            lambda: components.sealed(
                key_store, component, change_id=change_id, participant_id=participant_id
            )
        )
        refusal: OneCardError | None = None
        async with own_transaction(self._pool) as connection:
            change, given = await store.locked(connection, change_id)
            twin = next((one for one in given if one.request_id == request_id), None)
            if twin is not None:
                kcv = self._require_same_component(change, twin, component, participant_id)
                return _component_answer(change, number=twin.number, kcv=kcv)
            if await store.change_of_component(connection, request_id) is not None:
                raise RequestIdReusedError("change_id")
            try:
                rules.require_component_from(change, participant_id, [one.participant_id for one in given])
            except AUDITED_REFUSALS as error:
                refusal = error
            else:
                number, kcv = len(given) + 1, _component_kcv(change, component)
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
                await record.write_step(
                    connection,
                    Step.COMPONENT_SUBMITTED,
                    change,
                    participant_id=participant_id,
                    detail=f"component {number} kcv {kcv}",
                )
        if refusal is not None:
            await record.refuse_change(self._pool, refusal, change, participant_id=participant_id)
        return _component_answer(change, number=number, kcv=kcv)

    async def reject(self, change_id: str, *, participant_id: str) -> pb.RejectKeyChangeResponse:
        """Ends a change that waits; rejecting again gives the same answer.

        Raises:
            OneCardError: see the RPC.
        """
        refusal: OneCardError | None = None
        async with own_transaction(self._pool) as connection:
            change, _ = await store.locked(connection, change_id)
            if change.state is not ChangeState.REJECTED or change.decided_by != participant_id:
                try:
                    rules.require_undecided(change)
                except AUDITED_REFUSALS as error:
                    refusal = error
                else:
                    await store.reject(connection, change, participant_id=participant_id)
                    detail = change.kind.value
                    await record.write_step(
                        connection, Step.REJECTED, change, participant_id=participant_id, detail=detail
                    )
                    change, _ = await store.locked(connection, change_id)
        if refusal is not None:
            await record.refuse_change(self._pool, refusal, change, participant_id=participant_id)
        return pb.RejectKeyChangeResponse(change=answers.change_message(change))

    async def _propose(
        self,
        request: pb.ProposeKeyChangeRequest,
        proposal: Proposal,
        justification: str,
        participant_id: str,
    ) -> Change:
        change_id = request.request_id
        try:
            possible = await self._keys.ask(lambda: execution.possible(self._keys.store, proposal))
            if proposal.kind is ChangeKind.DESTROY:
                await store.require_not_in_use(self._pool, proposal.key)
        except AUDITED_REFUSALS as error:
            await record.refuse(
                self._pool,
                error,
                participant_id=participant_id,
                change_id=change_id,
                key=proposal.key,
                kind=proposal.kind,
            )
        async with own_transaction(self._pool) as connection:
            is_new = await store.insert_change(
                connection,
                possible.proposal,
                change_id=change_id,
                justification=justification,
                request=request.SerializeToString(deterministic=True),
                details=possible.details,
                participant_id=participant_id,
            )
            change, _ = await store.locked(connection, change_id)
            if is_new:
                detail = audit_text(change.kind, change.details)
                await record.write_step(
                    connection, Step.PROPOSED, change, participant_id=participant_id, detail=detail
                )
        if not is_new:
            _require_same(change, request, participant_id)
        return change

    async def _repeated(self, request: pb.ProposeKeyChangeRequest, participant_id: str) -> Change | None:
        """The change that this very proposal made before.

        Raises:
            MalformedFieldError: it is none.
            RequestIdReusedError: its id stands for another one.
        """
        proposal_of(request)
        async with own_transaction(self._pool) as connection:
            change, _ = await store.lock_change(connection, request.request_id)
        if change is not None:
            _require_same(change, request, participant_id)
        return change

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
        # Once the change has ended only the check value is left to compare.
        if kcv != twin.kcv or (
            twin.sealed is not None and not self._is_kept(change, twin.sealed, component, participant_id)
        ):
            raise RequestIdReusedError("component")
        return kcv

    def _is_kept(self, change: Change, sealed: bytes, component: bytes, participant_id: str) -> bool:
        # Keys that seal are in memory, also those of a store behind a token.
        try:
            kept = components.opened(
                self._keys.store, sealed, change_id=change.change_id, participant_id=participant_id
            )
        except SealBrokenError:
            return False
        return hmac.compare_digest(kept, component)


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


def _component_kcv(change: Change, component: bytes) -> str:
    """Check value of a component of a change that takes components.

    Raises:
        MalformedFieldError: not as long as the key, or all zero.
    """
    new = proposal_of(pb.ProposeKeyChangeRequest.FromString(change.request)).new
    assert new is not None, "a change that takes components makes a key"
    return components.check_value_of(new, component)


def _component_answer(change: Change, *, number: int, kcv: str) -> pb.SubmitKeyComponentResponse:
    # By the number of this component and not of those there are: a repetition is told the same.
    return pb.SubmitKeyComponentResponse(
        component_kcv=kcv, components_missing=change.components_needed - number
    )
