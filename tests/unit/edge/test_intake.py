"""What the digest of a request relies on."""

from google.protobuf.message import Message
from onecard.v1 import authorization_pb2, card_authentication_pb2, cards_pb2, cryptography_pb2, identity_pb2

from crypto.keys import Cipher, Key, KeyUsage
from crypto.sealing import RequestDigest
from server.catalogue.service import Catalogue
from server.edge.intake import Intake

MODULES = (authorization_pb2, card_authentication_pb2, cards_pb2, cryptography_pb2, identity_pb2)


def test_no_message_holds_a_map_whose_order_of_bytes_would_be_open() -> None:
    for module in MODULES:
        for message in module.DESCRIPTOR.message_types_by_name.values():
            assert not message.nested_types, message.full_name


def test_one_content_has_one_digest_however_it_came() -> None:
    key = Key(Cipher.HMAC_SM3, KeyUsage.REQUEST_DIGEST, bytes(32))
    intake = Intake(catalogue=Catalogue(None), digest=RequestDigest(key), deadline_default_ms=1)  # type: ignore[arg-type]
    request_id = "0198c5a2-7d3e-7b4a-9c1d-0242ac120002"
    request = authorization_pb2.AuthorizeRequest(request_id=request_id, pan="6217000000000000008", stan=7)
    turned = authorization_pb2.AuthorizeRequest(stan=7, pan="6217000000000000008", request_id=request_id)
    upper = authorization_pb2.AuthorizeRequest.FromString(request.SerializeToString())
    upper.request_id = request_id.upper()
    other: Message = authorization_pb2.AuthorizeRequest(
        request_id=request_id, pan="6217000000000000008", stan=8
    )
    assert intake.digest(request) == intake.digest(turned) == intake.digest(upper) != intake.digest(other)
