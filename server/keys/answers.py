"""What operators are told of keys, changes and the audit. Must never put a component or a key into a message."""

from datetime import datetime

from onecard.v1 import keys_pb2 as pb

from crypto.key_store.diagnosis import ArqcExplanation, ArqcFinding, ArqcParameters
from crypto.keys import Cipher, Exportability, KeyInfo, KeyState, UdkOption
from server.keys.rules import Change, ChangeState
from server.keys.shapes import ISSUER_MASTER_KEYS
from server.keys.store import AuditEntry

_CIPHERS = {
    Cipher.SM4: pb.KEY_CIPHER_SM4,
    Cipher.TDES: pb.KEY_CIPHER_TDES,
    Cipher.AES: pb.KEY_CIPHER_AES,
    Cipher.HMAC_SM3: pb.KEY_CIPHER_HMAC_SM3,
}
_STATES = {
    KeyState.PRE_ACTIVE: pb.KEY_LIFE_STATE_PRE_ACTIVE,
    KeyState.ACTIVE: pb.KEY_LIFE_STATE_ACTIVE,
    KeyState.VERIFY_ONLY: pb.KEY_LIFE_STATE_VERIFY_ONLY,
    KeyState.DESTROYED: pb.KEY_LIFE_STATE_DESTROYED,
}
_UDK_OPTIONS = {UdkOption.A: pb.CARD_KEY_OPTION_A, UdkOption.B: pb.CARD_KEY_OPTION_B}
_CHANGE_STATES = {
    ChangeState.PROPOSED: pb.KEY_CHANGE_STATE_PROPOSED,
    ChangeState.APPROVED: pb.KEY_CHANGE_STATE_APPROVED,
    ChangeState.EXECUTED: pb.KEY_CHANGE_STATE_EXECUTED,
    ChangeState.FAILED: pb.KEY_CHANGE_STATE_FAILED,
    ChangeState.REJECTED: pb.KEY_CHANGE_STATE_REJECTED,
    ChangeState.EXPIRED: pb.KEY_CHANGE_STATE_EXPIRED,
}


def described(info: KeyInfo) -> pb.KeyDescription:
    """What may be known of a key version."""
    is_exportable = info.exportability is Exportability.EXPORTABLE
    is_issuer_master_key = info.usage in ISSUER_MASTER_KEYS
    return pb.KeyDescription(
        name=info.name,
        version=info.version,
        usage=info.usage.value,
        cipher=_CIPHERS[info.cipher],
        kcv=info.kcv,
        state=_STATES[info.state],
        # A key that may leave in other forms only (S) does not leave by us.
        exportability=(
            pb.KEY_EXPORTABILITY_EXPORTABLE if is_exportable else pb.KEY_EXPORTABILITY_NON_EXPORTABLE
        ),
        card_key_option=(
            _UDK_OPTIONS[info.udk_option] if is_issuer_master_key else pb.CARD_KEY_OPTION_UNSPECIFIED
        ),
        destroy_at_unix_ms=(info.destroy_at_s or 0) * 1000,
    )


def change_message(change: Change) -> pb.KeyChange:
    """A change as the database has it."""
    return pb.KeyChange(
        change_id=change.change_id,
        kind=change.kind.value,
        key_name=change.key_name,
        key_version=change.key_version,
        state=_CHANGE_STATES[change.state],
        justification=change.justification,
        proposed_by=change.proposed_by,
        decided_by=change.decided_by,
        proposed_at_unix_ms=_unix_ms(change.proposed_at),
        decided_at_unix_ms=_unix_ms(change.decided_at) if change.decided_at is not None else 0,
        components_needed=change.components_needed,
        components_given=change.components_given,
        details=change.details,
    )


def audit_message(entry: AuditEntry) -> pb.KeyAuditEntry:
    """A step as the database has it."""
    return pb.KeyAuditEntry(
        entry_id=entry.entry_id,
        recorded_at_unix_ms=_unix_ms(entry.recorded_at),
        step=entry.step,
        participant=entry.participant_id,
        change_id=entry.change_id,
        key_name=entry.key_name,
        key_version=entry.key_version,
        detail=entry.detail,
    )


def explanation_message(explanation: ArqcExplanation) -> pb.ExplainArqcResponse:
    """What a diagnosis found."""
    fits_otherwise = explanation.finding is ArqcFinding.FITS_OTHER_PARAMETERS
    return pb.ExplainArqcResponse(
        finding=explanation.finding.value,
        expected=_parameters(explanation.expected),
        fitting=_parameters(explanation.fitting) if fits_otherwise else [],
    )


def _parameters(parameters: ArqcParameters | None) -> list[str]:
    if parameters is None:
        return []
    method = parameters.session_method
    return [
        f"key={parameters.key.name}/{parameters.key.version}",
        f"kcv={parameters.kcv}",
        f"session_key_method={method.value if method is not None else 'NONE'}",
        f"card_key_option={parameters.udk_option.value}",
        f"padding={parameters.padding.name}",
        f"data={parameters.data.value}",
        f"atc={parameters.atc}",
        f"psn={parameters.psn or 'NONE'}",
    ]


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
