"""What an instance keeps in its data directory about itself: the lock, and ``onecard.json`` for tools.

One instance per data directory: the lock is the kernel's (flock), so it ends with the process however that
dies. ``onecard.json`` names ports and process ids and must never hold a secret.
"""

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from server.errors import ConfigurationError

LOCK_NAME = "onecard.lock"
RUN_NAME = "onecard.json"


def open_data_directory(data_dir: Path) -> None:
    """Makes the data directory; others may pass through it, because PostgreSQL's user must when we are root.

    Raises:
        ConfigurationError: it cannot be made or is no directory.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if data_dir.stat().st_uid == os.geteuid() and not any(data_dir.iterdir()):
            # Ours and empty. What goes in has modes of its own: keys and certificates are 0700.
            data_dir.chmod(0o711)
    except OSError as error:
        raise ConfigurationError(f"data directory {data_dir} cannot be used: {error.strerror}") from None


def lock_data_directory(data_dir: Path) -> int:
    """Takes the lock and returns its descriptor, to be kept open as long as the instance lives.

    Raises:
        ConfigurationError: another instance holds it, or the directory cannot be written.
    """
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"data directory {data_dir} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigurationError(f"data directory {data_dir} is in use by process {holder}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def reserve_port(host: str, port: int) -> socket.socket:
    """Makes sure nobody listens on the port and keeps it for our workers, also while one of them restarts.

    The workers share the port (SO_REUSEPORT), so without this a second instance would join in silently.

    Returns:
        A bound socket that never listens; its ``getsockname`` tells a port chosen for 0.

    Raises:
        ConfigurationError: the port is taken or the address is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Passes over connections in TIME_WAIT, not over a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            chosen = probe.getsockname()
        kept = socket.socket(family, kind, protocol)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(chosen)
    except socket.gaierror as error:
        raise ConfigurationError(f"host {host} is not known: {error.strerror}") from None
    except PermissionError:
        raise ConfigurationError(f"port {port} may not be opened by this user") from None
    except OSError as error:
        raise ConfigurationError(f"port {port} on {host} is taken: {error.strerror}") from None
    return kept


def write_run_file(data_dir: Path, facts: dict[str, Any]) -> None:
    """Replaces ``onecard.json`` in one step."""
    unfinished = data_dir / (RUN_NAME + ".unfinished")
    unfinished.write_text(json.dumps(facts, indent=2) + "\n")
    unfinished.rename(data_dir / RUN_NAME)


def remove_run_file(data_dir: Path) -> None:
    (data_dir / RUN_NAME).unlink(missing_ok=True)


def read_run_file(data_dir: Path) -> dict[str, Any]:
    """The facts of the instance that runs on this data directory.

    Raises:
        ConfigurationError: none runs.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts: dict[str, Any] = json.loads((data_dir / RUN_NAME).read_text())
        os.kill(facts["supervisor_pid"], 0)
        return facts
    raise ConfigurationError(f"no onecard runs on {data_dir}: start it with 'onecard serve' or give --dsn")
