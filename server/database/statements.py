"""The SQL of a capability, loaded by name from its ``sql`` folder: one statement per file.

Every file begins with a head comment that says parameters, rows and locks. At start every statement is
prepared against the migrated schema, so a mistake in SQL stops the start and never meets a caller.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg

from server.errors import ConfigurationError

HEAD_WORDS = ("parameters", "rows", "locks")
ROOT_PACKAGE = "server"


class Statements(Mapping[str, str]):
    """The statements of one package by file name without ``.sql``."""

    def __init__(self, package: str, statements: dict[str, str]) -> None:
        self.package = package
        self._statements = statements

    def __getitem__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self.package} has no sql/{name}.sql") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


@cache
def load(package: str) -> Statements:
    """Reads ``sql/*.sql`` of a package, once.

    Args:
        package: dotted name, for example ``server.cards``.
    Raises:
        ConfigurationError: the package has no ``sql`` folder, or a file lacks its head comment.
    """
    folder = resources.files(package) / "sql"
    if not folder.is_dir():
        raise ConfigurationError(f"{package} has no folder sql")
    statements = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            statements[file.name.removesuffix(".sql")] = _read(package, file)
    return Statements(package, statements)


def packages_with_statements() -> list[str]:
    """Every package under ``server`` that has an ``sql`` folder."""
    found = []
    for entry in resources.files(ROOT_PACKAGE).iterdir():
        if entry.is_dir() and (entry / "__init__.py").is_file() and (entry / "sql").is_dir():
            found.append(f"{ROOT_PACKAGE}.{entry.name}")
    return sorted(found)


async def check(connection: asyncpg.Connection, packages: list[str] | None = None) -> int:
    """Prepares every statement and returns their number.

    Raises:
        ConfigurationError: a statement does not fit the schema; names the file.
    """
    count = 0
    for package in packages if packages is not None else packages_with_statements():
        for name, sql in load(package).items():
            try:
                await connection.prepare(sql)
            except asyncpg.PostgresError as error:
                message = error.args[0] if error.args else type(error).__name__
                raise ConfigurationError(
                    f"statement {package}/sql/{name}.sql is wrong: {message} ({error.sqlstate})"
                ) from None
            count += 1
    return count


def _read(package: str, file: Traversable) -> str:
    text = file.read_text(encoding="utf-8").strip()
    head = re.match(r"(?:--[^\n]*\n)+", text + "\n")
    words = head.group().lower() if head else ""
    missing = [word for word in HEAD_WORDS if f"{word}:" not in words]
    if missing:
        raise ConfigurationError(
            f"{package}/sql/{file.name}: the head comment lacks {', '.join(f'{word}:' for word in missing)}"
        )
    # The head stays out of what PostgreSQL sees: pg_stat_statements then shows the statement itself.
    return text[len(head.group()) if head else 0 :].strip().removesuffix(";")
