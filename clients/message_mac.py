"""A code over a money operation, under a key that the terminal shares with the core: see ``onecard.v1.MessageMac``.

It is put on last, and what is sent again is sent with the same code. Must never be put on a request that still changes.
"""

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2

from crypto.keys import Key
from crypto.message_mac import generate_message_mac

SEPARATOR = "|"
MAC_SIZE = 8


def mac_message(request: pb.AuthorizeRequest) -> bytes:
    """The fields that the code covers, as they stand in the request.

    Raises:
        ValueError: a field of text holds the separator: two requests could have one message.
    """
    original = request.original
    fields = (
        request.request_id,
        str(request.operation),
        request.pan or request.card_code or request.card_token,
        str(request.amount_minor),
        request.terminal_id,
        request.merchant_id,
        str(request.stan),
        request.to_pan,
        original.request_id,
        original.rrn,
        str(original.stan),
        original.terminal_id,
        original.business_date,
        str(original.mti_class),
        str(request.wallet),
        str(int(request.is_advice)),
        str(int(request.partial_approval_allowed)),
        str(int(request.more_completions_follow)),
        request.chip.arqc.hex(),
        request.pin.block.hex(),
    )
    if any(SEPARATOR in field for field in fields):
        raise ValueError("a field holds the separator")
    return SEPARATOR.join(fields).encode()


def put_mac(request: pb.AuthorizeRequest, key: Key, *, name: str, ksn: bytes = b"") -> None:
    """Puts a code of 8 bytes on a request that is otherwise ready.

    Args:
        request: changed in place.
        key: a MAC key, or the working key of a terminal's transaction with use MAC_REQUEST.
        name: what the core calls the key, or the one that the terminal's keys come from.
        ksn: of the transaction; empty for a MAC key.
    Raises:
        ValueError: as ``mac_message``.
        KeyUsageError: the key is for something else.
    """
    mac = generate_message_mac(key, mac_message(request), padding=None, size=MAC_SIZE)
    request.mac.CopyFrom(pb.MessageMac(key=cryptography_pb2.KeyReference(name=name), ksn=ksn, mac=mac))
