"""Certificates for the embedded default, so that mTLS works from the first minute.

A private authority in ``DATA_DIR/tls`` issues the server's certificate and those of participants. Its key
lies on the same disk, so it must never vouch for anybody in production: with ``--dsn`` nothing here is used.
"""

import contextlib
import datetime
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.errors import ConfigurationError

PARTICIPANT_URI = "onecard://participants/"
PARTICIPANT_ID = re.compile(r"[a-z0-9][a-z0-9-]{1,31}")
CA_DAYS = 3_650
LEAF_DAYS = 825
RENEW_DAYS = 30


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files of one certificate and its authority."""

    certificate: Path
    key: Path
    authority: Path


def ensure_server_certificate(data_dir: Path, *, host: str) -> CertificateFiles:
    """The server's certificate for localhost, the loopback addresses and ``host``; renewed when due."""
    files = _files(data_dir, "server")
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    extra = _host_name(host)
    if extra is not None and extra not in names:
        names.append(extra)
    if not _is_current(files, names):
        _issue(data_dir, files, "onecard development server", names, ExtendedKeyUsageOID.SERVER_AUTH)
    return files


def issue_participant_certificate(data_dir: Path, participant_id: str) -> CertificateFiles:
    """A client certificate whose URI names the participant; an existing one that still lasts is kept.

    Args:
        data_dir: the data directory of an embedded instance.
        participant_id: 2 to 32 characters of a-z, 0-9 and hyphen.
    Raises:
        ConfigurationError: the id has other characters.
    """
    check_participant_id(participant_id)
    files = _files(data_dir, f"participants/{participant_id}")
    names = [x509.UniformResourceIdentifier(PARTICIPANT_URI + participant_id)]
    if not _is_current(files, list(names)):
        _issue(data_dir, files, participant_id, list(names), ExtendedKeyUsageOID.CLIENT_AUTH)
    return files


def check_participant_id(participant_id: str) -> None:
    """Refuses an id that the schema would not hold, before it becomes part of a file name.

    Raises:
        ConfigurationError: the id has other characters or another length.
    """
    if not PARTICIPANT_ID.fullmatch(participant_id):
        raise ConfigurationError("a participant id is 2 to 32 characters of a-z, 0-9 and hyphen")


def _files(data_dir: Path, name: str) -> CertificateFiles:
    folder = data_dir / "tls"
    return CertificateFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


def _host_name(host: str) -> x509.GeneralName | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return x509.DNSName(host) if host.isascii() and host else None
    return None if address.is_unspecified else x509.IPAddress(address)


def _is_current(files: CertificateFiles, names: list[x509.GeneralName]) -> bool:
    """Whether the pair exists, belongs together, names what it should, is ours, and lasts another month."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(authority)
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with the files, the answer is a new certificate
        return False
    lasts = certificate.not_valid_after_utc - _now() > datetime.timedelta(days=RENEW_DAYS)
    return lasts and set(names) <= set(present) and certificate.public_key() == key.public_key()


def _authority(data_dir: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    folder = data_dir / "tls"
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    with contextlib.suppress(OSError, ValueError):
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "onecard development CA")])
    builder = (
        _builder(name, name, key.public_key(), key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    _write(key_path, _key_pem(key), mode=0o600)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return certificate, key


def _issue(
    data_dir: Path,
    files: CertificateFiles,
    common_name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
) -> None:
    authority, authority_key = _authority(data_dir)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, authority.subject, key.public_key(), authority_key.public_key(), LEAF_DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
    )
    certificate = builder.sign(authority_key, hashes.SHA256())
    # Key first: a crash in between leaves a pair that does not match, and the next start issues it anew.
    _write(files.key, _key_pem(key), mode=0o600)
    _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Whole or not at all, and never readable by others in between."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.rename(path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
