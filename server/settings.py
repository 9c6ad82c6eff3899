"""Every setting of the service, once.

The fields of :class:`Settings` are the only table: name with its unit, default, bounds, help text.
Command-line flags (``--port``), environment variables (``ONECARD_PORT``) and the JSON that child processes
read all come from it. A DSN may carry a password, so it is never in a repr, a log line or a child's command
line.
"""

# ruff: noqa: RUF009 - _setting() makes a dataclass field, which ruff cannot see

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import quote, urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from server.errors import ConfigurationError

LOG_LEVELS = ("debug", "info", "warning", "error")
KEY_STORES = ("software", "pkcs11")
PKCS11_MODES = ("batch", "strict")
# PKCS#11 numbers of slots, mechanisms and key types have 32 bits everywhere.
NUMBER_MAX = 0xFFFF_FFFF
# Of each worker, beside those of its lanes and its pool: two read events, one numbers them and reads positions.
SETTLEMENT_CONNECTIONS = 3
LAW_LOGS = "the law keeps network logs for at least 180 days"
LAW_ACCESS = "the law keeps records of access to personal data for at least 3 years"
LAW_REPLAY = "a request id is answered from its stored outcome for at least 72 hours"


def _setting(
    default: Any,
    help_text: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
    floor_reason: str = "",
    secret: bool = False,
    is_flag: bool = True,
) -> Any:
    facts = {
        "help": help_text,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "floor_reason": floor_reason,
        "is_flag": is_flag,
    }
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=facts, repr=not secret)
    return dataclasses.field(default=default, metadata=facts, repr=not secret)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 64)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one ``onecard serve`` runs with; checked when built, so a bad value never reaches a worker."""

    host: str = _setting("127.0.0.1", "Address the gRPC port listens on.")
    port: int = _setting(7443, "gRPC port; 0 chooses a free one.", minimum=0, maximum=65535)
    workers: int = _setting(
        _cores, "Worker processes on the port; default: the cores.", minimum=1, maximum=64
    )
    dsn: str | None = _setting(
        None, "PostgreSQL address (postgresql://...); without it an embedded PostgreSQL runs.", secret=True
    )
    data_dir: Path = _setting(
        lambda: Path("data"), "Directory of the embedded database, keys and certificates."
    )
    # What a worker gets is never 0: the supervisor asks the database.
    shards: int = _setting(
        0,
        "Shards of the hot tables, fixed when the first instance starts on a database;"
        " 0: as the database was made, and 1 for a new one.",
        minimum=0,
        maximum=64,
    )
    lanes: int = _setting(2, "Database connections per worker on the hot path.", minimum=1, maximum=32)
    pool_connections_max: int = _setting(
        4, "Database connections per worker off the hot path.", minimum=1, maximum=64
    )
    statement_timeout_ms: int = _setting(
        5_000, "Longest run of one database statement.", minimum=100, maximum=600_000
    )
    batch_max: int = _setting(256, "Operations in one database transaction.", minimum=1, maximum=4096)
    queue_max: int = _setting(8_192, "Operations waiting per worker.", minimum=1, maximum=1_000_000)
    card_cache_max: int = _setting(
        100_000, "Cards whose unchanging facts a worker keeps in memory.", minimum=0, maximum=10_000_000
    )
    in_flight_max: int = _setting(2_048, "Calls in flight per worker.", minimum=1, maximum=100_000)
    deadline_default_ms: int = _setting(
        5_000, "Deadline of a call that names none.", minimum=10, maximum=600_000
    )
    message_bytes_max: int = _setting(
        1 << 20, "Largest request or response message.", minimum=64 << 10, maximum=64 << 20
    )
    connection_age_max_s: int = _setting(
        600, "Age at which a client's connection is asked to reconnect.", minimum=5, maximum=86_400
    )
    metrics_host: str = _setting("127.0.0.1", "Address of the metrics page.")
    metrics_port: int = _setting(
        7480, "Port of the metrics page; 0 chooses a free one, -1 turns it off.", minimum=-1, maximum=65535
    )
    drain_ms: int = _setting(
        10_000, "Time calls in flight have to end after SIGTERM.", minimum=0, maximum=600_000
    )
    tls_certificate: Path | None = _setting(None, "PEM file of the server's certificate chain.")
    tls_key: Path | None = _setting(None, "PEM file of the server's private key.")
    tls_client_ca: Path | None = _setting(None, "PEM file of the authorities that issue client certificates.")
    key_store_dir: Path | None = _setting(None, "Directory of the key store; default: DATA_DIR/keys.")
    key_store: str = _setting(
        "software", "Where keys are: in files, or in a PKCS#11 token.", choices=KEY_STORES
    )
    key_store_timeout_ms: int = _setting(
        500, "Longest wait for one call into the token.", minimum=10, maximum=60_000
    )
    pkcs11_module: Path | None = _setting(None, "PKCS#11 module (.so) of the token.")
    pkcs11_token_label: str = _setting("onecard", "Label of the token, unless a slot is given.")
    pkcs11_slot: int = _setting(
        -1, "Number of the token's slot; -1 finds it by its label.", minimum=-1, maximum=NUMBER_MAX
    )
    pkcs11_pin_file: Path | None = _setting(
        None, "File with the token user's PIN, readable by its owner only."
    )
    pkcs11_mode: str = _setting(
        "batch",
        "batch: card keys of a batch leave the token for one check; strict: AES and 3DES card keys never do.",
        choices=PKCS11_MODES,
    )
    pkcs11_sm4_mechanism: int = _setting(
        0, "Vendor's number of SM4 in ECB; 0: the token has no SM4.", minimum=0, maximum=NUMBER_MAX
    )
    pkcs11_sm4_key_type: int = _setting(
        0, "Vendor's number of SM4 keys; goes with the mechanism.", minimum=0, maximum=NUMBER_MAX
    )
    pkcs11_tdes_derive_mechanism: int = _setting(
        0x1102,
        "Derivation by 3DES in ECB; default: CKM_DES3_ECB_ENCRYPT_DATA.",
        minimum=1,
        maximum=NUMBER_MAX,
    )
    pkcs11_aes_derive_mechanism: int = _setting(
        0x1104,
        "Derivation by AES in ECB; default: CKM_AES_ECB_ENCRYPT_DATA.",
        minimum=1,
        maximum=NUMBER_MAX,
    )
    log_level: str = _setting("info", "Least severe log line written.", choices=LOG_LEVELS)
    time_zone: str = _setting("Asia/Shanghai", "Time zone of the business day.")
    business_day_cutoff: str = _setting("23:00", "Local time (HH:MM) at which the next business day begins.")
    card_code_life_s: int = _setting(60, "Life of a card's QR code.", minimum=5, maximum=600)
    card_code_skew_s: int = _setting(5, "Clock difference a QR code may show.", minimum=0, maximum=60)
    challenge_life_s: int = _setting(30, "Life of a card-authentication challenge.", minimum=5, maximum=300)
    request_log_hours_min: int = _setting(
        72, "Hours in which a request id is replayed.", minimum=72, maximum=8_784, floor_reason=LAW_REPLAY
    )
    operations_days: int = _setting(
        100,
        "Days for which operations stay in the database before they are archived.",
        minimum=7,
        maximum=36_500,
    )
    archive_dir: Path | None = _setting(None, "Directory of archived operations; default: DATA_DIR/archive.")
    log_days: int = _setting(
        180, "Days for which service logs are kept.", minimum=180, maximum=36_500, floor_reason=LAW_LOGS
    )
    access_log_days: int = _setting(
        1_096,
        "Days for which access records are kept.",
        minimum=1_096,
        maximum=36_500,
        floor_reason=LAW_ACCESS,
    )

    socket_dir: Path | None = _setting(
        None, "Socket directory of the embedded database; the supervisor fills it in.", is_flag=False
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_bounds(field, getattr(self, field.name))
        _check_business_day(self)
        _check_tls(self)
        _check_key_store(self)
        _check_archive(self)

    @property
    def embedded(self) -> bool:
        """True when this instance runs its own PostgreSQL."""
        return self.dsn is None

    @property
    def database_dsn(self) -> str:
        """Where the database is: the given DSN, or the socket of the embedded server."""
        if self.dsn is not None:
            return self.dsn
        if self.socket_dir is None:
            raise ConfigurationError("the embedded database has not been started")
        return socket_dsn(self.socket_dir)

    @property
    def keys_dir(self) -> Path:
        return self.key_store_dir or self.data_dir / "keys"

    @property
    def settlement_dir(self) -> Path:
        """Where the files of closed days lie: a date, below it a participant."""
        return self.data_dir / "settlement"

    @property
    def archives_dir(self) -> Path:
        return self.archive_dir or self.data_dir / "archive"

    def to_json(self) -> str:
        """The settings for a child process; holds the DSN in clear, so it travels through a pipe only."""
        values = dataclasses.asdict(self)
        return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in values.items()})

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        hints = get_type_hints(cls)
        values = json.loads(text)
        for name, value in values.items():
            if value is not None and Path in (hints[name], *get_args(hints[name])):
                values[name] = Path(value)
        return cls(**values)


def _check_bounds(field: "dataclasses.Field[Any]", value: Any) -> None:
    facts = field.metadata
    if facts["choices"] and value not in facts["choices"]:
        raise ConfigurationError(f"{field.name} must be one of {', '.join(facts['choices'])}")
    if facts["minimum"] is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{field.name} must be a whole number")
    if value < facts["minimum"] and facts["floor_reason"]:
        raise ConfigurationError(
            f"{field.name} is {value}, the least is {facts['minimum']}: {facts['floor_reason']}"
        )
    if not facts["minimum"] <= value <= facts["maximum"]:
        raise ConfigurationError(
            f"{field.name} is {value}, allowed is {facts['minimum']} to {facts['maximum']}"
        )


def _check_business_day(settings: Settings) -> None:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", settings.business_day_cutoff):
        raise ConfigurationError("business_day_cutoff must be a time of day such as 23:00")
    try:
        ZoneInfo(settings.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(f"this machine does not know the time_zone {settings.time_zone!r}") from None


def _check_tls(settings: Settings) -> None:
    given = [p is not None for p in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)]
    if any(given) and not all(given):
        raise ConfigurationError(
            "tls_certificate, tls_key and tls_client_ca go together: give all three or none"
        )
    if settings.dsn is None:
        return
    if not settings.dsn.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError("dsn must be a postgresql:// address")
    if not all(given):
        raise ConfigurationError(
            "dsn needs tls_certificate, tls_key and tls_client_ca:"
            " the development certificates are for the embedded database only"
        )


def _check_key_store(settings: Settings) -> None:
    if settings.key_store != "pkcs11":
        return
    for name in ("pkcs11_module", "pkcs11_pin_file"):
        if getattr(settings, name) is None:
            raise ConfigurationError(f"key_store pkcs11 needs {name}")
    if bool(settings.pkcs11_sm4_mechanism) != bool(settings.pkcs11_sm4_key_type):
        raise ConfigurationError(
            "pkcs11_sm4_mechanism and pkcs11_sm4_key_type go together: give both or none"
        )


def _check_archive(settings: Settings) -> None:
    # One day more than the hours have, because a business date begins on the evening before.
    look_back_days = -(-settings.request_log_hours_min // 24) + 1
    if settings.operations_days <= look_back_days:
        raise ConfigurationError(
            f"operations_days is {settings.operations_days}, but request ids are looked up for {look_back_days} days:"
            " give more"
        )


def socket_dsn(socket_dir: Path, *, user: str = "onecard", database: str = "onecard") -> str:
    """The address of an embedded server; peer authentication, so there is no password in it."""
    return f"postgresql:///{database}?host={quote(str(socket_dir), safe='')}&port=5432&user={user}"


def masked_dsn(dsn: str) -> str:
    """The DSN without its password and query; anything that cannot be taken apart is masked whole."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
        user = f"{parts.username}@" if parts.username else ""
        return urlunsplit((parts.scheme, f"{user}{parts.hostname or ''}{port}", parts.path, "", ""))
    except ValueError:
        return "postgresql://***"
