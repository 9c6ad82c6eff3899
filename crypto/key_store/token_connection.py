"""A token as one process sees it: logged in, asked with a limit on the wait, given up at once while it is lost.

Whether an error is the question's or the token's is not read from its number, of which every vendor has its own:
the token is asked something it always can answer (the probe), and one that cannot is lost. Then every call is
refused at once, until the probe is answered again: tried in the background, at most once a second.

Must never have the PIN in a message, and never try a PIN twice that was refused: see ``token_pin``.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

import pkcs11
from pkcs11.exceptions import (
    KeyHandleInvalid,
    NoSuchKey,
    NoSuchToken,
    ObjectHandleInvalid,
    PKCS11Error,
    TokenNotPresent,
    UserAlreadyLoggedIn,
)

from crypto.errors import KeyStoreError, KeyStoreUnavailableError, TokenRefusalError
from crypto.key_store.token_objects import TokenObjects, attribute_mapper
from crypto.key_store.token_pin import PIN_REFUSALS, pin_to_try_once
from crypto.key_store.token_proofs import prove_mechanisms
from crypto.key_store.token_settings import TokenSettings
from crypto.key_store.token_thread import TokenThread

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CONTACT_MAX_S = 1.0
_PROBE = b"onecard token probe"
_STALE_HANDLES = (KeyHandleInvalid, ObjectHandleInvalid)

T = TypeVar("T")


class _TokenModule:
    """A loaded PKCS#11 module, of which a process has one: its thread and who is connected through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = TokenThread(f"pkcs11 {path.name}")
        self.connections: WeakSet[TokenConnection] = WeakSet()
        # Sessions that logged in, never closed: closing one logs every session of the process out.
        self.logins: dict[str, Any] = {}

    def load(self) -> Any:
        return pkcs11.lib(str(self.path))


# Modules are loaded once per process, and hold no secret here.
_modules: dict[Path, _TokenModule] = {}
_modules_lock = threading.Lock()


class TokenConnection:
    """One token, for as many threads as like to ask."""

    def __init__(self, settings: TokenSettings) -> None:
        self.settings = settings
        # A module that is reached by two paths is one: two threads in it would crash it.
        path = settings.module.resolve()
        with _modules_lock:
            if path not in _modules:
                _modules[path] = _TokenModule(settings.module)
            self._module = _modules[path]
        self._thread = self._module.thread
        self._timeout_s = settings.timeout_ms / 1000
        self._objects: TokenObjects | None = None
        self._storage_id: bytes | None = None
        self._probe = b""
        self._lock = threading.Lock()
        self._is_lost = False
        self._contact_s = 0.0

    @classmethod
    def open(cls, settings: TokenSettings) -> "TokenConnection":
        """Loads the module, logs in, and proves the mechanisms that are configured.

        Raises:
            KeyStoreUnavailableError: the module, the token, the PIN or a mechanism, in one line.
        """
        connection = cls(settings)
        try:
            refusal = connection._wait(
                connection._thread.submit(connection._first_connect), CONNECT_TIMEOUT_S
            )
        except TimeoutError:
            refusal = f"{settings.token_name} did not answer within {CONNECT_TIMEOUT_S:.0f} s"
        if refusal is not None:
            raise KeyStoreUnavailableError(f"key store: {refusal}")
        connection._module.connections.add(connection)
        return connection

    @property
    def is_lost(self) -> bool:
        """True from the moment the token did not answer until it answers again."""
        return self._is_lost

    @property
    def share_s(self) -> float:
        """How long ``work`` should go on before it leaves the rest to the next call: a slow token is not a lost one."""
        return self._timeout_s / 2

    def use_storage_key(self, object_id: bytes) -> None:
        """From now on the probe is something sealed under this key.

        Raises:
            KeyStoreUnavailableError: the token has no such key.
        """

        def seal_probe(objects: TokenObjects) -> bytes:
            return objects.seal(objects.find(object_id), _PROBE, aad=b"")

        try:
            self._probe = self.call(seal_probe)
        except TokenRefusalError:
            name = self.settings.token_name
            raise KeyStoreUnavailableError(
                f"key store: {name} has no storage key of this list, or no AES-GCM"
            ) from None
        self._storage_id = object_id

    def call(self, work: Callable[[TokenObjects], T], *, session: TokenObjects | None = None) -> T:
        """Runs ``work`` on the token's thread.

        Args:
            work: given the keys of the session; must be short enough for ``timeout_ms``.
            session: what ``work`` holds handles of; refused when the token was lost since.
        Raises:
            KeyStoreUnavailableError: the token is lost, or did not answer in time.
            TokenRefusalError: the token refused, and is there.
        """
        if self._is_lost:
            self._refuse()
        began_s = time.monotonic()
        future = self._thread.submit(lambda: self._run(work, session))
        try:
            return self._wait(future, self._timeout_s)
        except TimeoutError:
            # A token that answered others meanwhile is busy, not lost.
            if self._contact_s < began_s:
                self._lose("no answer in time")
        raise KeyStoreUnavailableError(
            f"key store: {self.settings.token_name} did not answer within {self.settings.timeout_ms} ms"
        )

    def post(self, work: Callable[[TokenObjects], object], *, session: TokenObjects | None = None) -> None:
        """Runs ``work`` when the thread is free, and never mind how it ends; from any thread, also a collector's.

        With ``session`` only if that one still lives.
        """

        def run() -> None:
            # Also while the token is lost: the session may outlive a token that was only slow.
            objects = self._objects
            if objects is not None and session in (None, objects):
                try:
                    work(objects)
                except PKCS11Error:
                    return

        self._thread.submit(run)

    def require_contact(self) -> None:
        """Refuses unless the token answered within the last second, or answers now.

        Raises:
            KeyStoreUnavailableError: it does not.
        """
        if self._is_lost:
            self._refuse()
        if time.monotonic() - self._contact_s >= CONTACT_MAX_S:
            self.probe()

    def probe(self) -> None:
        """Asks the token what it always can answer.

        Raises:
            KeyStoreUnavailableError: it did not.
        """
        if not self.call(lambda _: self._answers()):
            self._lose("probe failed")
            self._refuse()

    def _run(self, work: Callable[[TokenObjects], T], session: TokenObjects | None) -> T:
        objects = self._objects
        if self._is_lost or objects is None or session not in (None, objects):
            self._refuse()
        try:
            try:
                result = work(objects)
            except _STALE_HANDLES:
                # Another process removed the object, or put another in its place: looked for once more.
                objects.forget()
                result = work(objects)
        except PKCS11Error as error:
            # Nothing of the library leaves this thread with the error: see ``token_thread``.
            refusal, is_without_key = type(error).__name__, isinstance(error, NoSuchKey)
        else:
            self._contact_s = time.monotonic()
            return result
        if not self._answers():
            self._lose(refusal)
            self._refuse()
        raise TokenRefusalError(
            f"key store: {self.settings.token_name} refuses ({refusal})", is_without_key=is_without_key
        )

    def _wait(self, future: "Future[T]", timeout_s: float) -> T:
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def _refuse(self) -> NoReturn:
        raise KeyStoreUnavailableError(f"key store: {self.settings.token_name} is lost")

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._is_lost:
                return
            self._is_lost = True
        log.error("key store: %s is lost (%s)", self.settings.token_name, reason)
        self._thread.recover(self._recover)

    # What follows runs on the token's thread.

    def _answers(self) -> bool:
        objects = self._objects
        if objects is None:
            return False
        try:
            if self._storage_id is None:
                objects.random(8)
                return True
            opened = objects.open_sealed(objects.find(self._storage_id), self._probe, aad=b"")
        except PKCS11Error:
            return False
        return hmac.compare_digest(opened, _PROBE)

    def _recover(self) -> bool:
        """One attempt to have the token back; True also when there is no use in another."""
        if not self._answers():
            try:
                self._reconnect()
            except PIN_REFUSALS as error:
                name, refusal = self.settings.token_name, type(error).__name__
                log.error("key store: %s refuses the PIN (%s): not tried again", name, refusal)
                return True
            except (PKCS11Error, KeyStoreError):
                return False
            if not self._answers():
                return False
        self._contact_s = time.monotonic()
        self._is_lost = False
        log.warning("key store: %s answers again", self.settings.token_name)
        return True

    def _reconnect(self) -> None:
        if self._objects is not None:
            self._objects.close()
            self._objects = None
        try:
            self._connect()
        except PIN_REFUSALS:
            raise
        except (PKCS11Error, KeyStoreError):
            if len(self._module.connections) > 1:
                raise
            # A module that lost its server or device often needs a fresh start; no other session of this
            # process is hurt by it.
            self._module.logins.clear()
            self._module.load().reinitialize()
            self._connect()

    def _first_connect(self) -> str | None:
        """Why the token cannot be used, or None."""
        name, settings = self.settings.token_name, self.settings
        try:
            self._module.load()
        except (PKCS11Error, OSError) as error:
            return f"cannot load the PKCS#11 module {settings.module} ({type(error).__name__})"
        try:
            self._connect()
        except (NoSuchToken, TokenNotPresent, StopIteration):
            return f"{settings.module} has no {name}"
        except PIN_REFUSALS as error:
            return f"{name} refuses the PIN in {settings.pin_file} ({type(error).__name__})"
        except PKCS11Error as error:
            return f"{name} cannot be opened ({type(error).__name__})"
        except KeyStoreError as error:
            return str(error).removeprefix("key store: ")
        return None

    def _connect(self) -> None:
        token = self._find_token()
        session = token.open(rw=True, attribute_mapper=attribute_mapper())
        objects = TokenObjects(session, self.settings)
        try:
            self._log_in(token)
            prove_mechanisms(objects, self.settings)
        except BaseException:
            objects.close()
            raise
        self._objects = objects
        self._contact_s = time.monotonic()

    def _find_token(self) -> Any:
        library = self._module.load()
        if self.settings.slot is None:
            return library.get_token(token_label=self.settings.label)
        slots = [slot for slot in library.get_slots() if slot.slot_id == self.settings.slot]
        if not slots:
            raise NoSuchToken
        return slots[0].get_token()

    def _log_in(self, token: Any) -> None:
        """Logs the process in, unless it is: a login holds for every session of the token, as long as one lives."""
        logins, serial = self._module.logins, token.serial.hex()
        if serial in logins and _is_alive(logins[serial]):
            return
        with pin_to_try_once(self.settings.pin_file) as pin:
            try:
                logins[serial] = token.open(rw=True, user_pin=pin)
            except UserAlreadyLoggedIn:
                # By somebody else in this process. The library leaves the session of a failed login open: once.
                logins[serial] = token.open(rw=True)


def _is_alive(session: Any) -> bool:
    """Whether the token still knows the session."""
    try:
        session.generate_random(8)
    except PKCS11Error:
        return False
    return True
