"""What operators may read of keys: the keys themselves, their changes and audit, and why a cryptogram was wrong."""

import asyncio
from typing import Any

import asyncpg
from onecard.v1 import keys_pb2 as pb

from crypto.cryptogram import TransactionData
from crypto.errors import KeyNotFoundError, KeyStateError
from crypto.key_store.checks import ArqcCheck
from crypto.key_store.diagnosis import ArqcExplanation, ArqcFinding
from server.database.pool import own_transaction
from server.keys import answers, store
from server.keys.execution import AdministeredKeys, fresh_keys, refusals
from server.keys.rules import Step

# Each may compute some 2,000 MACs: more of them at once would be felt by the callers beside.
EXPLANATIONS_MAX = 1


class KeyReading:
    """The steps that change nothing, each for an operator whom the caller has checked."""

    def __init__(self, pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
        self._pool = pool
        self._keys = keys
        self._explanations = asyncio.Semaphore(EXPLANATIONS_MAX)

    async def keys(self) -> pb.ListKeysResponse:
        """All keys, as the store has them now.

        Raises:
            UnavailableError: the key store does not answer.
        """
        infos = await self._keys.ask(lambda: fresh_keys(self._keys.store))
        return pb.ListKeysResponse(keys=[answers.described(info) for info in infos])

    async def changes(
        self, *, only_proposed: bool, below: int | None, rows_max: int
    ) -> pb.ListKeyChangesResponse:
        """A page of changes.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        async with own_transaction(self._pool) as connection:
            changes = await store.list_changes(
                connection, only_proposed=only_proposed, below=below, rows_max=rows_max + 1
            )
        page = changes[:rows_max]
        return pb.ListKeyChangesResponse(
            changes=[answers.change_message(change) for change in page],
            next_page_token=str(page[-1].change_number) if len(changes) > rows_max else "",
        )

    async def audit(self, *, key_name: str, below: int | None, rows_max: int) -> pb.ListKeyAuditResponse:
        """A page of the audit.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        async with own_transaction(self._pool) as connection:
            entries = await store.list_audit(
                connection, key_name=key_name, below=below, rows_max=rows_max + 1
            )
        page = entries[:rows_max]
        return pb.ListKeyAuditResponse(
            entries=[answers.audit_message(entry) for entry in page],
            next_page_token=str(page[-1].entry_id) if len(entries) > rows_max else "",
        )

    async def explain(
        self, check: ArqcCheck, *, transaction: TransactionData, iad: bytes, participant_id: str
    ) -> pb.ExplainArqcResponse:
        """Tells why a cryptogram was wrong; version 0 of ``check.key`` is the active one.

        Raises:
            OneCardError: see the RPC.
        """
        async with self._explanations:
            explanation = await self._keys.ask(lambda: self._explained(check, transaction, iad))
        async with own_transaction(self._pool) as connection:
            await store.write_audit(
                connection,
                Step.EXPLAINED,
                participant_id=participant_id,
                change_id=None,
                key_name=check.key.name,
                key_version=check.key.version,
                detail=explanation.finding.value,
            )
        return answers.explanation_message(explanation)

    def _explained(self, check: ArqcCheck, transaction: TransactionData, iad: bytes) -> ArqcExplanation:
        self._keys.store.refresh()
        if not check.key.version:
            try:
                check.key = self._keys.store.active(check.key.name)
            except KeyNotFoundError:
                return ArqcExplanation(finding=ArqcFinding.KEY_UNKNOWN)
            except KeyStateError:
                return ArqcExplanation(finding=ArqcFinding.KEY_IN_WRONG_STATE)
        # A token in strict mode gives no card key away, not to be explained either.
        with refusals():
            return self._keys.store.explain_arqc(check, transaction=transaction, iad=iad)
