"""Known answers by name, and key stores of every backend."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from crypto.key_store.data_plane import DataPlane
from crypto.key_store.listed_store import ListedKeyStore
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.token_settings import TokenMode, TokenSettings

VECTORS = Path(__file__).parents[2] / "vectors"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
TOKEN_LABEL = "onecard-tests"
USER_PIN = "93617240"
PINS = ("--pin", USER_PIN, "--so-pin", "57031864")


@dataclass(frozen=True)
class Backend:
    """A way to keep keys: the same tests run over each."""

    name: str
    create: Callable[[Path], ListedKeyStore]
    open: Callable[[Path], ListedKeyStore]


@pytest.fixture(scope="session")
def vectors() -> dict[str, dict[str, Any]]:
    entries = [entry for path in sorted(VECTORS.glob("*.json")) for entry in json.loads(path.read_text())]
    return {entry["name"]: entry for entry in entries}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> SoftwareKeyStore:
    return SoftwareKeyStore.create(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> TokenSettings:
    """A SoftHSM token. A process can load the module with one configuration only: so one for the session."""
    if not SOFTHSM.exists():
        pytest.fail(f"{SOFTHSM} is missing: run `make packages`")
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", TOKEN_LABEL, *PINS],
        check=True,
        capture_output=True,
    )
    pin_file = directory / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text(f"{USER_PIN}\n")
    # Generous: the machine that runs the tests may be busy, and time is not what they test.
    return TokenSettings(module=SOFTHSM, pin_file=pin_file, label=TOKEN_LABEL, timeout_ms=10_000)


@pytest.fixture(scope="session", params=["software", "batch", "strict"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "software":
        return Backend("software", SoftwareKeyStore.create, SoftwareKeyStore.open)
    settings: TokenSettings = request.getfixturevalue("token")
    if request.param == "strict":
        settings = replace(settings, mode=TokenMode.STRICT)
    return Backend(
        request.param,
        lambda directory: Pkcs11KeyStore.create(directory, settings),
        lambda directory: Pkcs11KeyStore.open(directory, settings),
    )


@pytest.fixture(scope="session")
def any_store(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> ListedKeyStore:
    """A store of each backend, for tests that change nothing in it."""
    return backend.create(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def changing_store(backend: Backend, tmp_path: Path) -> Iterator[ListedKeyStore]:
    """A store of each backend, of one test."""
    store = backend.create(tmp_path / "keys")
    yield store
    # SoftHSM looks through all its objects for one: those of a test go with it.
    for _, material in store._keys.values():
        store._discard(material)


@pytest.fixture
def other_store(backend: Backend, tmp_path: Path, changing_store: ListedKeyStore) -> ListedKeyStore:
    """Another process's view of the same keys."""
    return backend.open(tmp_path / "keys")


@pytest.fixture
def plane(any_store: ListedKeyStore) -> DataPlane:
    return DataPlane(any_store)


@pytest.fixture
def own_store(tmp_path: Path) -> SoftwareKeyStore:
    """A software store that a test may change."""
    return SoftwareKeyStore.create(tmp_path / "keys")
