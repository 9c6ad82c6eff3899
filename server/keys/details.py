"""What the second operator is shown of a change before approving it. Must never hold a key, component or key block."""

from collections.abc import Sequence

from crypto.keys import Exportability, Key, KeyInfo, UdkOption
from server.keys.rules import ChangeKind, Proposal, active_version, named
from server.keys.shapes import ISSUER_MASTER_KEYS


def details_of(proposal: Proposal, keys: Sequence[KeyInfo]) -> list[str]:
    """What a change that brings no key block is about, one ``name=value`` each.

    Args:
        proposal: possible as things are, and pinned.
        keys: every version in the key store.
    """
    new = proposal.new
    if new is not None:
        details = [f"usage={new.usage.value}", f"cipher={new.cipher.value}", f"key_bytes={new.size}"]
        details.append(f"exportability={new.exportability.name}")
        if new.usage in ISSUER_MASTER_KEYS:
            details.append(f"card_key_option={new.udk_option.value}")
        if proposal.components:
            details += [f"kcv={proposal.kcv}", f"components={proposal.components}"]
        return details
    is_rotation = proposal.kind is ChangeKind.ROTATE
    info = active_version(proposal.key.name, keys) if is_rotation else named(proposal.key, keys)
    details = [f"usage={info.usage.value}", f"cipher={info.cipher.value}"]
    details.append(f"exportability={info.exportability.name}")
    if info.usage in ISSUER_MASTER_KEYS:
        details.append(f"card_key_option={info.udk_option.value}")
    # The check value of a key that is yet to be drawn is not known, and the one before would be taken for it.
    return details + ([] if is_rotation else [f"kcv={info.kcv}"]) + _under(proposal)


def details_of_block(
    proposal: Proposal, key: Key, *, exportability: Exportability, udk_option: UdkOption
) -> list[str]:
    """The same of a key that comes as a block."""
    details = [f"usage={key.usage.value}", f"cipher={key.cipher.value}", f"key_bytes={len(key.value)}"]
    details.append(f"exportability={exportability.name}")
    if key.usage in ISSUER_MASTER_KEYS:
        details.append(f"card_key_option={udk_option.value}")
    return [*details, f"kcv={key.kcv()}", *_under(proposal)]


def audit_text(kind: ChangeKind, details: Sequence[str], *, kcv: str = "") -> str:
    """Kind and details as the audit has them; ``kcv`` of the key that there is by now."""
    others = [detail for detail in details if not (kcv and detail.startswith("kcv="))]
    return " ".join([kind.value, *([f"kcv={kcv}"] if kcv else []), *others])


def _under(proposal: Proposal) -> list[str]:
    under = proposal.under
    return [] if under is None else [f"under={under.name}/{under.version}"]
