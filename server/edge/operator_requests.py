"""What the requests of operators have in common: who asks, which change is meant, and which page of a list."""

from server.edge import fields
from server.edge.caller import current_caller
from server.errors import MalformedFieldError

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
# Less than what a bigint holds.
ROW_NUMBER_DIGITS_MAX = 18


def operator_id() -> str:
    """The caller's id.

    Raises:
        NotGrantedError: the caller is no operator.
    """
    caller = current_caller.get()
    caller.require_operator()
    return caller.participant_id


def parse_change_id(text: str) -> str:
    """A change's UUID.

    Raises:
        MalformedFieldError: not a UUID.
    """
    try:
        return fields.request_id(text)
    except MalformedFieldError:
        raise MalformedFieldError("change_id", "must be a UUID") from None


def rows_of_page(size: int) -> int:
    """How many rows a page has; 0 asks for the default.

    Raises:
        MalformedFieldError: more than a page may have.
    """
    if size > PAGE_SIZE_MAX:
        raise MalformedFieldError("page_size", f"must be at most {PAGE_SIZE_MAX}")
    return size or PAGE_SIZE_DEFAULT


def row_number(token: str) -> int | None:
    """The row that a page token names; nothing is told by one that the list does not tell.

    Raises:
        MalformedFieldError: no list gave such a token.
    """
    if not token:
        return None
    if len(token) > ROW_NUMBER_DIGITS_MAX or not (token.isascii() and token.isdigit()):
        raise wrong_page_token()
    return int(token)


def wrong_page_token() -> MalformedFieldError:
    """The error of a page token that no list gave."""
    return MalformedFieldError("page_token", "must be the next_page_token of the page before")
