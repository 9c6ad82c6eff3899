"""Server credentials for mutual TLS that follow their files.

Certificates are renewed while the service runs: before each handshake the files' times are looked at, and a
new pair is taken when it is complete. A pair that does not match is never used; the old one stays until it
does.
"""

import logging
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from server.errors import ConfigurationError

log = logging.getLogger(__name__)


def server_credentials(certificate: Path, key: Path, client_ca: Path) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and reload the three PEM files when they change.

    Raises:
        ConfigurationError: a file cannot be read, or certificate and key do not belong together.
    """
    files = _PemFiles(certificate, key, client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.first(),
        files.changed,  # type: ignore[arg-type]  # None means "keep"; the stubs do not know it
        require_client_authentication=True,
    )


class _PemFiles:
    """The three files as last accepted; ``changed`` runs on gRPC's own threads."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen: tuple[tuple[int, int, int], ...] | None = None

    def first(self) -> grpc.ServerCertificateConfiguration:
        self._seen = self._stamps()
        return self._load()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None when nothing changed or what changed cannot be used."""
        stamps = self._stamps()
        if stamps is None or stamps == self._seen:
            return None
        self._seen = stamps  # also when refused: a bad pair is told once, not at every handshake
        try:
            configuration = self._load()
        except ConfigurationError as error:
            log.error("TLS files changed but are not used: %s", error.message)
            return None
        log.info("TLS files reloaded")
        return configuration

    def _stamps(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            facts = [path.stat() for path in (self._certificate, self._key, self._client_ca)]
        except OSError:
            return None
        return tuple((fact.st_mtime_ns, fact.st_size, fact.st_ino) for fact in facts)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        certificate = _read(self._certificate)
        key = _read(self._key)
        client_ca = _read(self._client_ca)
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
            private_key = serialization.load_pem_private_key(key, password=None)
            x509.load_pem_x509_certificates(client_ca)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigurationError(
                f"the TLS files {self._certificate}, {self._key}, {self._client_ca} are not all valid PEM"
            ) from None
        if leaf.public_key() != private_key.public_key():
            raise ConfigurationError(
                f"TLS certificate {self._certificate} does not belong to key {self._key}"
            )
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS file {path} cannot be read: {error.strerror}") from None
