"""Why nothing was archived or restored."""

import contextlib
from collections.abc import Iterator

import asyncpg

from server.errors import OneCardError


class ArchiveError(OneCardError):
    """An archive was not made, is not what was recorded, or cannot come back. Nothing in the database changed."""


class HeldBackError(ArchiveError):
    """Something still needs the rows of a business date."""

    def __init__(self, message: str) -> None:
        super().__init__("ARCHIVE_HELD_BACK", message)


@contextlib.contextmanager
def as_archive_errors() -> Iterator[None]:
    """Turns what a disk or the database refuses into an ``ArchiveError``, so that it is told and stops no other date.

    Raises:
        ArchiveError: with the reason, and without a value.
    """
    try:
        yield
    except OSError as error:
        raise ArchiveError(
            "ARCHIVE_FILE_FAILED", f"the files cannot be used: {error.strerror or 'failed'}"
        ) from error
    except asyncpg.PostgresError as error:
        raise ArchiveError(
            "ARCHIVE_DATABASE_REFUSED", f"the database refuses it: {type(error).__name__} ({error.sqlstate})"
        ) from error
    except asyncpg.InterfaceError as error:
        raise ArchiveError("ARCHIVE_DATABASE_LOST", "the database does not answer any more") from error
