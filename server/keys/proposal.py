"""A proposal off the wire: checked field by field, and read back the same way when it is approved."""

from dataclasses import replace
from typing import TypeVar

from onecard.v1 import cryptography_pb2
from onecard.v1 import keys_pb2 as pb

from crypto.key_store.lifecycle import VERSION_MAX
from crypto.keys import Cipher, Exportability, UdkOption
from server.errors import MalformedFieldError
from server.keys import shapes
from server.keys.rules import ChangeKind, Proposal
from server.keys.shapes import KeyName, NewVersion

KEY_BLOCK_CHARACTERS_MIN = 16
KEY_BLOCK_CHARACTERS_MAX = 4_096
JUSTIFICATION_CHARACTERS_MAX = 200

_CIPHERS: dict[int, Cipher] = {
    pb.KEY_CIPHER_SM4: Cipher.SM4,
    pb.KEY_CIPHER_TDES: Cipher.TDES,
    pb.KEY_CIPHER_AES: Cipher.AES,
    pb.KEY_CIPHER_HMAC_SM3: Cipher.HMAC_SM3,
}
_EXPORTABILITIES: dict[int, Exportability] = {
    pb.KEY_EXPORTABILITY_UNSPECIFIED: Exportability.NON_EXPORTABLE,
    pb.KEY_EXPORTABILITY_EXPORTABLE: Exportability.EXPORTABLE,
    pb.KEY_EXPORTABILITY_NON_EXPORTABLE: Exportability.NON_EXPORTABLE,
}
_UDK_OPTIONS: dict[int, UdkOption | None] = {
    pb.CARD_KEY_OPTION_UNSPECIFIED: None,
    pb.CARD_KEY_OPTION_A: UdkOption.A,
    pb.CARD_KEY_OPTION_B: UdkOption.B,
}
# Changes of one version that is there already, by their field in the request.
_OF_ONE_VERSION = {
    "export_block": ChangeKind.EXPORT_BLOCK,
    "activate": ChangeKind.ACTIVATE,
    "retire": ChangeKind.RETIRE,
    "destroy": ChangeKind.DESTROY,
    "cancel_destruction": ChangeKind.CANCEL_DESTRUCTION,
}

T = TypeVar("T")


def justification(text: str) -> str:
    """
    Raises:
        MalformedFieldError: empty, too long, or not one line of text.
    """
    if not 1 <= len(text) <= JUSTIFICATION_CHARACTERS_MAX or not text.isprintable() or not text.strip():
        raise MalformedFieldError(
            "justification", f"must be 1 to {JUSTIFICATION_CHARACTERS_MAX} printable characters"
        )
    return text


def proposal_of(request: pb.ProposeKeyChangeRequest) -> Proposal:
    """What is proposed.

    Raises:
        MalformedFieldError: a field breaks its bounds, or no change is set.
    """
    which = request.WhichOneof("change")
    if which == "generate":
        key, new = _new_key("generate", request.generate)
        return Proposal(kind=ChangeKind.GENERATE, key=key, new=new)
    if which == "import_components":
        return _import_components(request.import_components)
    if which == "import_block":
        return _import_block(request.import_block)
    if which == "rotate":
        key = KeyName(name=shapes.name("rotate.name", request.rotate.name), version=0)
        return Proposal(kind=ChangeKind.ROTATE, key=key)
    if which in _OF_ONE_VERSION:
        path = f"{which}.key"
        key = key_name(path, getattr(request, which).key)
        if not key.version:
            raise MalformedFieldError(f"{path}.version", f"must be 1 to {VERSION_MAX}")
        under = None
        if which == "export_block":
            under = key_name("export_block.under", request.export_block.under)
            if under == key:
                raise MalformedFieldError("export_block.under", "must be another key")
        return Proposal(kind=_OF_ONE_VERSION[which], key=key, under=under)
    raise MalformedFieldError("change", "must be exactly one change")


def stored_proposal(request: pb.ProposeKeyChangeRequest, *, under_version: int) -> Proposal:
    """A proposal read back, with the version of the protecting key that was meant."""
    proposal = proposal_of(request)
    if proposal.under is None:
        return proposal
    return replace(proposal, under=replace(proposal.under, version=under_version))


def key_name(path: str, reference: cryptography_pb2.KeyReference) -> KeyName:
    """Name and version of a key; version 0 is the active one.

    Raises:
        MalformedFieldError: either is malformed.
    """
    name = shapes.name(f"{path}.name", reference.name)
    if reference.version > VERSION_MAX:
        raise MalformedFieldError(f"{path}.version", f"must be at most {VERSION_MAX}")
    return KeyName(name=name, version=reference.version)


def _import_components(message: pb.ImportKeyComponents) -> Proposal:
    key, new = _new_key("import_components.key", message.key)
    if message.components not in shapes.COMPONENT_COUNTS:
        raise MalformedFieldError("import_components.components", "must be 2 or 3")
    return Proposal(
        kind=ChangeKind.IMPORT_COMPONENTS,
        key=key,
        new=new,
        components=message.components,
        kcv=shapes.check_value("import_components.kcv", message.kcv),
    )


def _import_block(message: pb.ImportKeyBlock) -> Proposal:
    block = message.key_block
    is_visible = block.isascii() and block.isprintable()
    if not KEY_BLOCK_CHARACTERS_MIN <= len(block) <= KEY_BLOCK_CHARACTERS_MAX or not is_visible:
        raise MalformedFieldError(
            "import_block.key_block",
            f"must be {KEY_BLOCK_CHARACTERS_MIN} to {KEY_BLOCK_CHARACTERS_MAX} ASCII characters",
        )
    return Proposal(
        kind=ChangeKind.IMPORT_BLOCK,
        key=KeyName(name=shapes.new_name("import_block.name", message.name), version=0),
        key_block=block,
        under=key_name("import_block.under", message.under),
        udk_option=_named(_UDK_OPTIONS, "import_block.card_key_option", message.card_key_option),
    )


def _new_key(path: str, message: pb.GenerateKey) -> tuple[KeyName, NewVersion]:
    name = shapes.new_name(f"{path}.name", message.name)
    new = shapes.new_version(
        path,
        usage=message.usage,
        cipher=_named(_CIPHERS, f"{path}.cipher", message.cipher),
        size=message.key_bytes,
        exportability=_named(_EXPORTABILITIES, f"{path}.exportability", message.exportability),
        udk_option=_named(_UDK_OPTIONS, f"{path}.card_key_option", message.card_key_option),
    )
    return KeyName(name=name, version=0), new


def _named(values: "dict[int, T]", path: str, number: int) -> T:
    """What a number of an enum stands for; the numbers of newer callers are refused."""
    if number not in values:
        raise MalformedFieldError(path, "must be one of the named values")
    return values[number]
