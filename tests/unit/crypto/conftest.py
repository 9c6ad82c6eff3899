"""Known answers by name, and one key store for the tests that only read it."""

import json
from pathlib import Path
from typing import Any

import pytest

from crypto.key_store.software import SoftwareKeyStore

VECTORS = Path(__file__).parents[2] / "vectors"


@pytest.fixture(scope="session")
def vectors() -> dict[str, dict[str, Any]]:
    entries = [entry for path in sorted(VECTORS.glob("*.json")) for entry in json.loads(path.read_text())]
    return {entry["name"]: entry for entry in entries}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> SoftwareKeyStore:
    return SoftwareKeyStore.create(tmp_path_factory.mktemp("keys"))
