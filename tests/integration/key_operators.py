"""Operators of the tests, their calls to the KeyService, and what the audit says of them."""

import asyncio
from typing import Any

import known_secrets
from core_under_test import CALL_S, GRANTS_IN_FORCE_S, Core, Refusal, new_id, refusal_of
from onecard.v1 import cryptography_pb2, keys_pb2, keys_pb2_grpc

from server.database.statements import load

WHY = "test ceremony"
KEY_CLASSES = ("key_view", "key_custodian", "key_diagnosis")


def reference(name: str, version: int = 0) -> cryptography_pb2.KeyReference:
    return cryptography_pb2.KeyReference(name=name, version=version)


def new_key(name: str, usage: str = "IMK_AC", cipher: str = "SM4", **fields: Any) -> keys_pb2.GenerateKey:
    return keys_pb2.GenerateKey(
        name=name, usage=usage, cipher=keys_pb2.KeyCipher.Value(f"KEY_CIPHER_{cipher}"), **fields
    )


def proposal(**fields: Any) -> keys_pb2.ProposeKeyChangeRequest:
    return keys_pb2.ProposeKeyChangeRequest(**{"request_id": new_id(), "justification": WHY} | fields)


async def aged(core: Core, change_id: str, column: str, age: str) -> None:
    """Puts ``proposed_at`` or ``decided_at`` back, as only time may."""
    async with core.database.acquire() as connection, connection.transaction():
        await connection.execute("ALTER TABLE key_changes DISABLE TRIGGER key_changes_guarded")
        await connection.execute(
            f"UPDATE key_changes SET {column} = clock_timestamp() - $2::text::interval WHERE change_id = $1",
            change_id,
            age,
        )
        await connection.execute("ALTER TABLE key_changes ENABLE TRIGGER key_changes_guarded")


async def interrupted(core: Core, change_id: str, *, age: str = "0 s") -> None:
    """What a worker leaves that dies after the approval: as ``custodian-02`` approved it so long ago."""
    await core.database.execute(
        "WITH approved AS ("
        " UPDATE key_changes SET state = 'APPROVED', decided_by = 'custodian-02',"
        " decided_at = clock_timestamp() - $2::text::interval WHERE change_id = $1"
        " RETURNING change_id, key_name, key_version, kind)"
        " INSERT INTO key_audit (step, participant_id, change_id, key_name, key_version, detail)"
        " SELECT 'APPROVED', 'custodian-02', change_id, key_name, key_version, kind FROM approved",
        change_id,
        age,
    )


class KeyOperator:
    """One participant's calls, each on a connection of its own."""

    def __init__(self, core: Core, participant_id: str) -> None:
        self.participant_id = participant_id
        self.stub = keys_pb2_grpc.KeyServiceStub(core.caller(participant_id).channel)

    async def propose(self, **fields: Any) -> keys_pb2.KeyChange:
        return (await self.stub.ProposeKeyChange(proposal(**fields), timeout=CALL_S)).change

    async def approve(self, change_id: str) -> keys_pb2.ApproveKeyChangeResponse:
        request = keys_pb2.ApproveKeyChangeRequest(change_id=change_id)
        return await self.stub.ApproveKeyChange(request, timeout=CALL_S)

    async def reject(self, change_id: str) -> keys_pb2.KeyChange:
        request = keys_pb2.RejectKeyChangeRequest(change_id=change_id)
        return (await self.stub.RejectKeyChange(request, timeout=CALL_S)).change

    async def submit(self, change_id: str, component: bytes, **fields: Any) -> Any:
        # What is too long for a key ends in a part so short that it would be found everywhere.
        known_secrets.remember("a key component", component[:32])
        parts = {"request_id": new_id(), "change_id": change_id, "component": component}
        return await self.stub.SubmitKeyComponent(
            keys_pb2.SubmitKeyComponentRequest(**parts | fields), timeout=CALL_S
        )

    async def keys(self, name: str = "") -> list[keys_pb2.KeyDescription]:
        keys = (await self.stub.ListKeys(keys_pb2.ListKeysRequest(), timeout=CALL_S)).keys
        return [key for key in keys if name in ("", key.name)]

    async def audit(self, name: str) -> list[keys_pb2.KeyAuditEntry]:
        """Every step of a key, the first first."""
        request = keys_pb2.ListKeyAuditRequest(key_name=name, page_size=1000)
        entries = (await self.stub.ListKeyAudit(request, timeout=CALL_S)).entries
        return list(reversed(entries))

    async def steps(self, name: str) -> list[tuple[str, str, str]]:
        """Step, participant and detail."""
        return [(entry.step, entry.participant, entry.detail) for entry in await self.audit(name)]

    async def change(self, change_id: str) -> keys_pb2.KeyChange:
        answer = await self.stub.ListKeyChanges(
            keys_pb2.ListKeyChangesRequest(page_size=1000), timeout=CALL_S
        )
        return next(change for change in answer.changes if change.change_id == change_id)


class Ceremony:
    """Three operators of a core."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.one, self.two, self.three = (KeyOperator(core, f"custodian-0{n}") for n in (1, 2, 3))

    async def done(self, **change: Any) -> keys_pb2.ApproveKeyChangeResponse:
        """Proposes as one operator and approves as another."""
        proposed = await self.one.propose(**change)
        return await self.two.approve(proposed.change_id)

    async def refused(self, **change: Any) -> Refusal:
        """The refusal of a proposal."""
        return await refusal_of(self.one.propose(**change))

    async def active_key(self, name: str, **fields: Any) -> keys_pb2.KeyDescription:
        """A key of a new name, active."""
        made = await self.done(generate=new_key(name, **fields))
        ref = reference(name, made.key.version)
        return (await self.done(activate=keys_pb2.ActivateKey(key=ref))).key


async def add_key_participants(core: Core) -> None:
    """Operators, one that lacks each grant, and a bank that has them all."""
    statements = load("server.edge")
    kinds = {f"custodian-0{n}": ("operator", KEY_CLASSES) for n in (1, 2, 3)}
    for rpc_class in KEY_CLASSES:
        others = [other for other in KEY_CLASSES if other != rpc_class]
        kinds[f"not-{rpc_class.replace('_', '-')}"] = "operator", others
    kinds["key-bank-01"] = "bank", KEY_CLASSES
    for participant_id, (kind, classes) in kinds.items():
        await core.database.fetch(statements["add_participant"], participant_id, participant_id, kind)
        await core.database.fetch(statements["grant_participant"], participant_id, "rpc_class", list(classes))
    await asyncio.sleep(GRANTS_IN_FORCE_S)
