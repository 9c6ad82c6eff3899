"""An operator who looks after keys over gRPC: proposes, brings components, approves, and reads the record.

Nothing changes by one person: what one custodian proposes, another approves. Must never keep a component, and never
put one into a text.
"""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from onecard.v1 import common_pb2, cryptography_pb2
from onecard.v1 import keys_pb2 as pb

from clients.channel import OneCardChannel, new_request_id
from clients.service_client import OneCardClient

PAGE_SIZE = 1_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key version is to be.

    Args:
        name: lower-case words with hyphens.
        usage: the one thing it may do, for instance ``IMK_AC``.
        cipher: SM4, TDES, AES or HMAC_SM3.
        key_bytes: 16, 24 or 32 for AES; 0 means the cipher's own.
        is_exportable: whether it may leave as a key block.
        card_key_option: A or B of an issuer master key, or empty.
    """

    name: str
    usage: str
    cipher: str
    key_bytes: int = 0
    is_exportable: bool = False
    card_key_option: str = ""

    def message(self) -> pb.GenerateKey:
        """The same on the wire.

        Raises:
            ValueError: unknown cipher or option.
        """
        return pb.GenerateKey(
            name=self.name,
            usage=self.usage,
            cipher=pb.KeyCipher.Value(f"KEY_CIPHER_{self.cipher}"),
            key_bytes=self.key_bytes,
            exportability=(
                pb.KEY_EXPORTABILITY_EXPORTABLE if self.is_exportable else pb.KEY_EXPORTABILITY_NON_EXPORTABLE
            ),
            card_key_option=card_key_option(self.card_key_option),
        )


def card_key_option(option: str) -> "pb.CardKeyOption.ValueType":
    """A, B, or empty for none.

    Raises:
        ValueError: another.
    """
    return pb.CardKeyOption.Value(f"CARD_KEY_OPTION_{option or 'UNSPECIFIED'}")


def key_reference(name: str, version: int = 0) -> cryptography_pb2.KeyReference:
    """A key by name and version; 0 is the active one."""
    return cryptography_pb2.KeyReference(name=name, version=version)


class KeyCustodian:
    """One operator. Each method raises ``OneCardCallError`` when there is no answer.

    Proposals take the request id of the caller's choice, so that a proposal whose answer was lost is made once.
    """

    def __init__(self, channel: OneCardChannel) -> None:
        self._client = OneCardClient(channel)

    async def keys(self) -> list[pb.KeyDescription]:
        """All keys, by name and version."""
        return list((await self._client.list_keys(pb.ListKeysRequest())).keys)

    async def generate(self, key: NewKey, *, why: str, request_id: str = "") -> pb.KeyChange:
        """Proposes to make a key version inside the key store."""
        return await self._propose(why, request_id, generate=key.message())

    async def import_components(
        self, key: NewKey, *, components: int, kcv: str, why: str, request_id: str = ""
    ) -> pb.KeyChange:
        """Proposes to bring a key in by components; ``kcv`` is the check value of the whole key."""
        message = pb.ImportKeyComponents(key=key.message(), components=components, kcv=kcv)
        return await self._propose(why, request_id, import_components=message)

    async def import_block(
        self,
        name: str,
        key_block: str,
        *,
        under: cryptography_pb2.KeyReference,
        why: str,
        option: str = "",
        request_id: str = "",
    ) -> pb.KeyChange:
        """Proposes to bring a key in as a key block under ``under``."""
        message = pb.ImportKeyBlock(
            name=name, key_block=key_block, under=under, card_key_option=card_key_option(option)
        )
        return await self._propose(why, request_id, import_block=message)

    async def export_block(
        self,
        key: cryptography_pb2.KeyReference,
        *,
        under: cryptography_pb2.KeyReference,
        why: str,
        request_id: str = "",
    ) -> pb.KeyChange:
        """Proposes to give a key away as a key block under ``under``; the approval tells the block."""
        message = pb.ExportKeyBlock(key=key, under=under)
        return await self._propose(why, request_id, export_block=message)

    async def activate(
        self, key: cryptography_pb2.KeyReference, *, why: str, request_id: str = ""
    ) -> pb.KeyChange:
        """Proposes to put a version into use."""
        return await self._propose(why, request_id, activate=pb.ActivateKey(key=key))

    async def rotate(self, name: str, *, why: str, request_id: str = "") -> pb.KeyChange:
        """Proposes to renew a key."""
        return await self._propose(why, request_id, rotate=pb.RotateKey(name=name))

    async def retire(
        self, key: cryptography_pb2.KeyReference, *, why: str, request_id: str = ""
    ) -> pb.KeyChange:
        """Proposes to take a version out of use."""
        return await self._propose(why, request_id, retire=pb.RetireKey(key=key))

    async def destroy(
        self, key: cryptography_pb2.KeyReference, *, why: str, request_id: str = ""
    ) -> pb.KeyChange:
        """Proposes to destroy a version seven days after the approval."""
        return await self._propose(why, request_id, destroy=pb.DestroyKey(key=key))

    async def cancel_destruction(
        self, key: cryptography_pb2.KeyReference, *, why: str, request_id: str = ""
    ) -> pb.KeyChange:
        """Proposes to call a destruction off."""
        message = pb.CancelKeyDestruction(key=key)
        return await self._propose(why, request_id, cancel_destruction=message)

    async def submit_component(
        self, change_id: str, component: bytes, *, request_id: str = ""
    ) -> pb.SubmitKeyComponentResponse:
        """Brings this operator's component."""
        return await self._client.submit_key_component(
            pb.SubmitKeyComponentRequest(
                request_id=request_id or new_request_id(), change_id=change_id, component=component
            )
        )

    async def approve(self, change_id: str) -> pb.ApproveKeyChangeResponse:
        """Approves what another operator proposed, and has it carried out."""
        return await self._client.approve_key_change(pb.ApproveKeyChangeRequest(change_id=change_id))

    async def reject(self, change_id: str) -> pb.KeyChange:
        """Rejects a change, or withdraws this operator's own."""
        return (await self._client.reject_key_change(pb.RejectKeyChangeRequest(change_id=change_id))).change

    async def changes(self, *, only_proposed: bool = False) -> AsyncIterator[pb.KeyChange]:
        """Changes, the latest first."""
        token = ""
        while True:
            page = await self._client.list_key_changes(
                pb.ListKeyChangesRequest(only_proposed=only_proposed, page_size=PAGE_SIZE, page_token=token)
            )
            for change in page.changes:
                yield change
            if not (token := page.next_page_token):
                return

    async def change(self, change_id: str) -> pb.KeyChange | None:
        """One change, looked for among all; None when there is none of this id."""
        async for change in self.changes():
            if change.change_id == change_id.lower():
                return change
        return None

    async def audit(self, key_name: str = "") -> AsyncIterator[pb.KeyAuditEntry]:
        """The audit, the latest first; of one key or of all."""
        token = ""
        while True:
            page = await self._client.list_key_audit(
                pb.ListKeyAuditRequest(key_name=key_name, page_size=PAGE_SIZE, page_token=token)
            )
            for entry in page.entries:
                yield entry
            if not (token := page.next_page_token):
                return

    async def explain(
        self,
        key: cryptography_pb2.KeyReference,
        *,
        pan: str,
        psn: str,
        chip: common_pb2.ChipCryptogram,
        amount_minor: int,
        session_key_method: str = "PBOC",
    ) -> pb.ExplainArqcResponse:
        """Asks why a cryptogram was wrong.

        Raises:
            ValueError: unknown session-key method.
        """
        method = cryptography_pb2.SessionKeyMethod.Value(f"SESSION_KEY_METHOD_{session_key_method}")
        return await self._client.explain_arqc(
            pb.ExplainArqcRequest(
                key=key,
                pan=pan,
                psn=psn,
                chip=chip,
                amount_minor=amount_minor,
                session_key_method=method,
            )
        )

    async def _propose(self, why: str, request_id: str, **change: Any) -> pb.KeyChange:
        request = pb.ProposeKeyChangeRequest(
            request_id=request_id or new_request_id(), justification=why, **change
        )
        return (await self._client.propose_key_change(request)).change
