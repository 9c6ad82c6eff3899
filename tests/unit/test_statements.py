"""Statements: found by name, with a head comment, one per file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.database import statements
from server.errors import ConfigurationError

HEAD = "-- Says what it is for.\n-- Parameters: none. Rows: one.\n-- Locks: none.\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package ``room_of_a_test`` whose ``sql`` folder is returned."""
    folder = tmp_path / "room_of_a_test" / "sql"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    statements.load.cache_clear()
    yield folder
    statements.load.cache_clear()
    sys.modules.pop("room_of_a_test", None)


def test_statement_is_found_by_name_without_its_head(package: Path) -> None:
    (package / "read_one.sql").write_text(HEAD + "SELECT 1;\n")
    loaded = statements.load("room_of_a_test")
    assert dict(loaded) == {"read_one": "SELECT 1"}


def test_unknown_name_says_which_file_is_missing(package: Path) -> None:
    with pytest.raises(KeyError, match=r"room_of_a_test has no sql/absent\.sql"):
        statements.load("room_of_a_test")["absent"]


@pytest.mark.parametrize("word", ["Parameters", "Rows", "Locks"])
def test_incomplete_head_is_refused(package: Path, word: str) -> None:
    (package / "read_one.sql").write_text(HEAD.replace(f"{word}:", "") + "SELECT 1\n")
    with pytest.raises(ConfigurationError, match=rf"read_one\.sql: the head comment lacks {word.lower()}:"):
        statements.load("room_of_a_test")


def test_package_without_sql_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no folder sql"):
        statements.load("server")


def test_every_statement_of_the_service_has_its_head() -> None:
    packages = statements.packages_with_statements()
    assert "server.database" in packages
    assert all(len(statements.load(package)) > 0 for package in packages if package == "server.database")
