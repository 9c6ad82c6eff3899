"""The gRPC server of a worker: its port, its options, and the services it tells of."""

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from onecard.v1 import (
    authorization_pb2,
    card_authentication_pb2,
    cards_pb2,
    cryptography_pb2,
    identity_pb2,
    keys_pb2,
    rules_pb2,
    settlement_pb2,
)

from server.edge.tls import server_credentials
from server.errors import ConfigurationError
from server.settings import Settings

SERVICES = {
    module.DESCRIPTOR.services_by_name[name].full_name: module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (authorization_pb2, "AuthorizationService"),
        (card_authentication_pb2, "CardAuthenticationService"),
        (cards_pb2, "CardService"),
        (cryptography_pb2, "CryptographyService"),
        (identity_pb2, "IdentityService"),
        (keys_pb2, "KeyService"),
        (rules_pb2, "RuleService"),
        (settlement_pb2, "SettlementService"),
    )
}
PING_INTERVAL_MIN_MS = 20_000


def build_server(settings: Settings) -> tuple[grpc.aio.Server, HealthServicer]:
    """The gRPC server on the shared port, with health and reflection.

    Raises:
        ConfigurationError: certificates are missing or do not fit.
    """
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_send_message_length", settings.message_bytes_max),
        ("grpc.max_connection_age_ms", settings.connection_age_max_s * 1000),
        ("grpc.max_connection_age_grace_ms", settings.drain_ms),
        # Clients may ask whether an idle connection still lives.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = grpc.aio.server(options=options)
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None or key is None or client_ca is None:
        raise ConfigurationError("tls_certificate, tls_key and tls_client_ca are required")
    server.add_secure_port(
        f"{settings.host}:{settings.port}", server_credentials(certificate, key, client_ca)
    )
    health_servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)  # type: ignore[no-untyped-call]
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)  # type: ignore[no-untyped-call]
    return server, health_servicer
