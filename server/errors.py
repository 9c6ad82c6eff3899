"""The operating errors of the core.

A decline is an answer and never an exception; a programmer error is an assertion. What remains is here:
conditions under which a call has no outcome. Messages never hold a value of the request.

::

    OneCardError
    ├── ConfigurationError           one line on stderr, exit 2; never reaches the wire
    ├── MalformedFieldError          a field breaks its documented bounds
    ├── UnauthenticatedError         the certificate names no known, active participant
    ├── NotGrantedError              the participant lacks a grant
    ├── NotFoundError                an identifier names nothing
    ├── RequestIdReusedError         the same request id with other content
    ├── AlreadyExistsError           an identifier is taken
    ├── StateConflictError           the state does not admit the step
    ├── OverloadedError              a queue or an in-flight limit is full
    ├── ContendedError               bounded retries are used up
    ├── UnavailableError             a part of the core is gone or draining
    │   └── DatabaseUnavailableError
    ├── DeadlineError                the deadline passed before the decision; nothing was applied
    └── InternalError                a programmer error, told by an id only
"""


class OneCardError(Exception):
    """An operating error with a stable reason in UPPER_SNAKE."""

    def __init__(self, reason: str, message: str, *, field: str = "", retry_delay_ms: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_delay_ms = retry_delay_ms


class ConfigurationError(OneCardError):
    """The process cannot start as configured."""

    def __init__(self, message: str) -> None:
        super().__init__("CONFIGURATION", message)


class MalformedFieldError(OneCardError):
    """A field breaks its documented bounds; ``rule`` says which, never the value."""

    def __init__(self, field: str, rule: str, *, reason: str = "MALFORMED_FIELD") -> None:
        super().__init__(reason, f"{field}: {rule}", field=field)


class UnauthenticatedError(OneCardError):
    """The certificate names no known, active participant."""


class NotGrantedError(OneCardError):
    """The participant lacks a grant."""


class NotFoundError(OneCardError):
    """An identifier names nothing."""


class RequestIdReusedError(OneCardError):
    """The same request id came with other content; names the field, never its value."""

    def __init__(self, field: str) -> None:
        super().__init__("REQUEST_ID_REUSED", f"request_id was used before with another {field}", field=field)


class AlreadyExistsError(OneCardError):
    """An identifier is taken."""


class StateConflictError(OneCardError):
    """The state does not admit the step."""


class OverloadedError(OneCardError):
    """A queue or an in-flight limit is full."""

    def __init__(self, message: str, *, retry_delay_ms: int = 100) -> None:
        super().__init__("OVERLOADED", message, retry_delay_ms=retry_delay_ms)


class ContendedError(OneCardError):
    """Bounded retries are used up; the same request id may be sent again."""

    def __init__(self) -> None:
        super().__init__("CONTENDED", "lost to concurrent operations", retry_delay_ms=50)


class UnavailableError(OneCardError):
    """A part of the core is gone or draining; the same request id may be sent again."""


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer."""

    def __init__(self) -> None:
        super().__init__("DATABASE_UNAVAILABLE", "the database does not answer", retry_delay_ms=500)


class DeadlineError(OneCardError):
    """The deadline passed before the decision; nothing was applied."""

    def __init__(self) -> None:
        super().__init__("DEADLINE_PASSED", "the deadline passed before the decision; nothing was applied")


class InternalError(OneCardError):
    """A programmer error: the log has the rest under ``incident_id``."""

    def __init__(self, incident_id: str) -> None:
        super().__init__("INTERNAL", f"internal error {incident_id}")
