"""The child processes of ``onecard serve``: how the supervisor watches one, and what runs inside it.

Each is a fresh interpreter (nothing of grpc or asyncpg is ever forked), reads its settings from stdin, says
through a pipe when it serves, and dies with the supervisor. A dead one is started again with growing pauses.
"""

import argparse
import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from server.errors import ConfigurationError
from server.log_lines import set_up_logging
from server.metrics_page import DIRECTORY_VARIABLE, forget_process
from server.parent_death import die_with_parent
from server.settings import Settings

log = logging.getLogger(__name__)

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 5.0
HEALTHY_AFTER_S = 30.0
READY = b"R"
REFUSED = b"E"
EXIT_CONFIGURATION = 2


class Child:
    """One child process and its successors.

    Args:
        kind: ``worker`` or ``housekeeper``; also the metric label.
        module: what the interpreter runs.
        index: number among its kind.
        settings: sent to the child through stdin, because a DSN may carry a password.
        on_change: called when the child serves, refuses its configuration, or has ended.
    """

    def __init__(
        self,
        *,
        kind: str,
        module: str,
        index: int,
        settings: Settings,
        metrics_dir: Path,
        on_change: Callable[[], None],
    ) -> None:
        self.kind = kind
        self.name = f"{kind} {index}"
        self.is_ready = False
        self.refusal: str | None = None
        self.restarts = 0
        self._failures_in_a_row = 0
        self._command = [sys.executable, "-P", "-m", module, "--index", str(index)]
        self._settings_json = settings.to_json().encode()
        self._metrics_dir = metrics_dir
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_at_s = 0.0
        self._restart: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def failures_in_a_row(self) -> int:
        return self._failures_in_a_row

    def start(self) -> None:
        self._restart = None
        reader, writer = os.pipe()
        environment = os.environ | {DIRECTORY_VARIABLE: str(self._metrics_dir)}
        environment.pop("ONECARD_DSN", None)
        self._process = subprocess.Popen(  # noqa: S603
            [*self._command, "--ready-descriptor", str(writer), "--parent-pid", str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
            env=environment,
            # Out of the terminal's group: Ctrl-C reaches the supervisor alone, which drains in order.
            start_new_session=True,
        )
        os.close(writer)
        os.set_blocking(reader, False)
        asyncio.get_running_loop().add_reader(reader, self._on_pipe, reader)
        if self._process.stdin is not None:
            # Far smaller than the pipe's buffer, so this does not wait for the child.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(self._settings_json)
                self._process.stdin.close()

    def reap(self, *, restart: bool) -> None:
        """Notices that the process has ended, and plans its successor."""
        process = self._process
        if process is None or process.poll() is None:
            return
        if self.is_ready and time.monotonic() - self._ready_at_s > HEALTHY_AFTER_S:
            self._failures_in_a_row = 0
        self._process = None
        self.is_ready = False
        forget_process(self._metrics_dir, process.pid)
        if restart:
            pause_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0**self._failures_in_a_row)
            self._failures_in_a_row += 1
            self.restarts += 1
            log.error(
                "%s ended and is started again",
                self.name,
                extra={"exit_code": process.returncode, "ended_pid": process.pid, "pause_s": pause_s},
            )
            self._restart = asyncio.get_running_loop().call_later(pause_s, self.start)
        self._on_change()

    def send(self, signal_number: int) -> None:
        """Signals the process if there is one, and cancels a successor that waits."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._process is not None:
            self._process.send_signal(signal_number)

    def _on_pipe(self, reader: int) -> None:
        try:
            message = os.read(reader, 4096)
        except BlockingIOError:
            return
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        if message.startswith(READY):
            self.is_ready = True
            self.refusal = None
            self._ready_at_s = time.monotonic()
        elif message.startswith(REFUSED):
            self.refusal = message[len(REFUSED) :].decode(errors="replace")
            if self.restarts:
                # At the first start the supervisor ends with it; later it is known from here only.
                log.error("%s refuses to start: %s", self.name, self.refusal)
        self._on_change()


def settle_collector() -> None:
    """Tells the garbage collector what a process that serves knows of its objects."""
    gc.collect()
    gc.freeze()  # what exists now lives as long as the process: no collection need look at it again
    # Operations in flight are many and free of cycles: look for garbage rarely, and over all objects more rarely.
    gc.set_threshold(50_000, 20, 100)


ChildMain = Callable[[Settings, int, Callable[[], None]], Awaitable[None]]


def run_child(serve: ChildMain) -> None:
    """The life of a child process: settings from stdin, ``serve`` on uvloop, readiness through the pipe.

    Args:
        serve: gets settings, index and what to call once it serves; returns when it has drained after
        SIGTERM.
    """
    parser = argparse.ArgumentParser(description="started by onecard serve only")
    for option in ("--index", "--ready-descriptor", "--parent-pid"):
        parser.add_argument(option, type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(signal.SIGKILL, parent_pid=arguments.parent_pid)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = arguments.ready_descriptor
    # pass_fds made it inheritable; nothing the child starts may hold the pipe open.
    fcntl.fcntl(pipe, fcntl.F_SETFD, fcntl.FD_CLOEXEC)

    def ready() -> None:
        settle_collector()
        os.write(pipe, READY)
        os.close(pipe)

    try:
        settings = Settings.from_json(sys.stdin.read())
        set_up_logging(settings.log_level)
        uvloop.run(_awaited(serve(settings, arguments.index, ready)))
    except ConfigurationError as error:
        with contextlib.suppress(OSError):
            os.write(pipe, REFUSED + error.message.encode())
        sys.exit(EXIT_CONFIGURATION)
    except Exception as error:
        # As a log line: a bare traceback would quote the text of foreign exceptions.
        log.critical("process ends", exc_info=error)
        sys.exit(1)


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _serve_worker(settings: Settings, index: int, ready: Callable[[], None]) -> None:
    # Imported here: the supervisor imports this module too and must stay free of grpc.
    from server import app

    await app.serve(settings, worker_index=index, ready=ready)


if __name__ == "__main__":
    run_child(_serve_worker)
