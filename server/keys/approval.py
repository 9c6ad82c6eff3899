"""Approvals of changes of keys: decided, carried out, recorded, in this order.

The database decides and the key store acts, and no transaction spans both: the approval is committed first (APPROVED),
then the key store does its part without any transaction open, and a second transaction marks the change EXECUTED. What
dies in between is completed by approving again, or by the housekeeper, because everything the key store does may be
repeated. Must never let one person alone change a key, and never give out a key block that is not on record.
"""

from typing import Any

import asyncpg
from onecard.v1 import keys_pb2 as pb

from server.database.pool import own_transaction
from server.errors import NotFoundError, OneCardError, StateConflictError
from server.keys import answers, execution, record, rules, store
from server.keys.components import WrongCheckValueError
from server.keys.details import audit_text
from server.keys.execution import AdministeredKeys, Executed, Work
from server.keys.proposal import stored_proposal
from server.keys.record import AUDITED_REFUSALS
from server.keys.rules import Change, ChangeKind, ChangeState, Step
from server.keys.shapes import KeyName
from server.keys.shielded import ShieldedTasks
from server.keys.store import SubmittedComponent

HOUSEKEEPER = "housekeeper"


class KeyApprovals:
    """Carries changes of keys out, each for an operator whom the caller has checked, or for the housekeeper."""

    def __init__(self, pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
        self._pool = pool
        self._keys = keys
        self._tasks = ShieldedTasks()

    async def approve(self, change_id: str, *, participant_id: str) -> pb.ApproveKeyChangeResponse:
        """Approves a change and carries it out, or completes what was interrupted; goes on when the caller hangs up.

        Raises:
            OneCardError: see the RPC.
        """
        return await self._tasks.run(self._approve(change_id, participant_id))

    async def finish_interrupted(self) -> None:
        """Completes every change whose approval was interrupted, for the housekeeper.

        Raises:
            Exception: the first that one of them met; the others were tried all the same.
        """
        async with own_transaction(self._pool) as connection:
            change_ids = await store.list_unfinished(connection)
        errors = []
        for change_id in change_ids:
            try:
                await self._finish(change_id)
            except AUDITED_REFUSALS:
                continue  # on record as FAILED
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def _approve(self, change_id: str, participant_id: str) -> pb.ApproveKeyChangeResponse:
        change, kept = await self._read(change_id)
        if rules.is_told_again(change, participant_id) and change.kind is not ChangeKind.EXPORT_BLOCK:
            return _answer(change, await self._as_it_is_now(change))
        try:
            if not rules.is_told_again(change, participant_id):
                rules.require_approver(change, participant_id)
                if change.state is ChangeState.PROPOSED:
                    await self._require_possible(change, kept)
                    change = await self._approved(change, participant_id)
        except WrongCheckValueError:
            await self._reject_components(change, participant_id)
        except AUDITED_REFUSALS as error:
            await record.refuse_change(self._pool, error, change, participant_id=participant_id)
        return _answer(*await self._carried_out(change, kept, participant_id))

    async def _finish(self, change_id: str) -> None:
        change, kept = await self._read(change_id)
        if change.state is not ChangeState.APPROVED:
            return
        if change.kind is ChangeKind.EXPORT_BLOCK:
            # Nobody is there to take the block; none was given out, because that is on record before.
            await self._fail(change, HOUSEKEEPER, rules.wrong_change_state("the approval was interrupted"))
            return
        await self._carried_out(change, kept, HOUSEKEEPER)

    async def _require_possible(self, change: Change, kept: list[SubmittedComponent]) -> None:
        """Asked before the approval is written, so that what cannot be done stays a proposal.

        Raises:
            WrongCheckValueError: the components make another key.
            OneCardError: see the RPC.
        """
        work = _work(change, kept)
        await self._keys.ask(lambda: execution.require_possible(self._keys.store, work))
        if change.kind is ChangeKind.DESTROY:
            await store.require_not_in_use(self._pool, work.proposal.key)

    async def _approved(self, change: Change, participant_id: str) -> Change:
        """Commits the approval, under the change's lock; a twin's that came first is completed.

        Raises:
            NotGrantedError, StateConflictError: it is decided otherwise by now.
        """
        async with own_transaction(self._pool) as connection:
            change, _ = await store.locked(connection, change.change_id)
            rules.require_approver(change, participant_id)
            if change.state is ChangeState.PROPOSED:
                await store.approve(connection, change, participant_id=participant_id)
                await record.write_step(
                    connection,
                    Step.APPROVED,
                    change,
                    participant_id=participant_id,
                    detail=audit_text(change.kind, change.details),
                )
                change, _ = await store.locked(connection, change.change_id)
        return change

    async def _carried_out(
        self, change: Change, kept: list[SubmittedComponent], participant_id: str
    ) -> tuple[Change, Executed]:
        """Has the key store act on an approved change, without a transaction, and writes that it did.

        Raises:
            StateConflictError, NotFoundError: the key store refuses it for good; an approved change has FAILED.
            UnavailableError: it is to be completed later.
        """
        work = _work(change, kept)
        try:
            executed = await self._keys.ask(lambda: execution.execute(self._keys.store, work))
        except WrongCheckValueError:
            error: OneCardError = _wrong_check_value()
        except (NotFoundError, StateConflictError) as refusal:
            error = refusal
        else:
            return await self._recorded(change, executed, participant_id), executed
        if not await self._fail(change, participant_id, error):
            await record.refuse_change(self._pool, error, change, participant_id=participant_id)
        raise error

    async def _recorded(self, change: Change, executed: Executed, participant_id: str) -> Change:
        """
        Raises:
            StateConflictError: the housekeeper has given the change up meanwhile; no key block leaves.
        """
        detail = audit_text(change.kind, change.details, kcv=executed.key.kcv)
        async with own_transaction(self._pool) as connection:
            change, _ = await store.locked(connection, change.change_id)
            if change.state is ChangeState.APPROVED:
                version = executed.key.version
                await store.finish(connection, change, ChangeState.EXECUTED, key_version=version)
                change, _ = await store.locked(connection, change.change_id)
            elif change.state is not ChangeState.EXECUTED:
                rules.require_undecided(change)
            elif not executed.key_block:
                return change
            else:
                # Each time a key leaves is a step of its own.
                detail += " again"
            await record.write_step(
                connection, Step.EXECUTED, change, participant_id=participant_id, detail=detail
            )
        return change

    async def _fail(self, change: Change, participant_id: str, error: OneCardError) -> bool:
        """Gives an approved change up; False when it is not, because it is done already."""
        async with own_transaction(self._pool) as connection:
            change, _ = await store.locked(connection, change.change_id)
            if change.state is not ChangeState.APPROVED:
                return False
            await store.finish(connection, change, ChangeState.FAILED, key_version=change.key_version)
            detail = f"{change.kind.value} {error.reason}"
            await record.write_step(
                connection, Step.FAILED, change, participant_id=participant_id, detail=detail
            )
        return True

    async def _reject_components(self, change: Change, participant_id: str) -> None:
        """Ends an import whose components make another key than was announced.

        Raises:
            StateConflictError: always.
        """
        error = _wrong_check_value()
        async with own_transaction(self._pool) as connection:
            change, _ = await store.locked(connection, change.change_id)
            if change.state is ChangeState.PROPOSED:
                await store.reject(connection, change, participant_id=participant_id)
                await record.write_step(
                    connection, Step.REJECTED, change, participant_id=participant_id, detail=error.reason
                )
        raise error

    async def _read(self, change_id: str) -> tuple[Change, list[SubmittedComponent]]:
        async with own_transaction(self._pool) as connection:
            return await store.locked(connection, change_id)

    async def _as_it_is_now(self, change: Change) -> Executed:
        """The key of a change that is done: not done once more, because other changes may have followed."""
        key = KeyName(name=change.key_name, version=change.key_version)
        infos = await self._keys.ask(lambda: execution.fresh_keys(self._keys.store))
        return Executed(key=rules.named(key, infos))


def _work(change: Change, kept: list[SubmittedComponent]) -> Work:
    request = pb.ProposeKeyChangeRequest.FromString(change.request)
    return Work(
        proposal=stored_proposal(request, under_version=change.under_version),
        change_id=change.change_id,
        kept=[(component.participant_id, component.sealed) for component in kept],
        now_s=int(change.now.timestamp()),
    )


def _answer(change: Change, executed: Executed) -> pb.ApproveKeyChangeResponse:
    return pb.ApproveKeyChangeResponse(
        change=answers.change_message(change),
        key=answers.described(executed.key),
        key_block=executed.key_block,
    )


def _wrong_check_value() -> StateConflictError:
    return StateConflictError("KEY_CHECK_VALUE_WRONG", "the components make another key")
