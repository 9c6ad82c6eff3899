"""Why nothing was archived or restored."""

from server.errors import OneCardError


class ArchiveError(OneCardError):
    """An archive was not made, is not what was recorded, or cannot come back. Nothing in the database changed."""


class HeldBackError(ArchiveError):
    """Something still needs the rows of a business date."""

    def __init__(self, message: str) -> None:
        super().__init__("ARCHIVE_HELD_BACK", message)
