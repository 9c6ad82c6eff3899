"""Ties a child process to the life of its parent, so that kill -9 of the supervisor leaves nothing behind."""

import ctypes
import os
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(death_signal: int, *, parent_pid: int) -> Callable[[], None]:
    """What a child calls first (after any change of user, which would undo it).

    From then on the kernel sends ``death_signal`` when the parent's forking thread ends. Linux only;
    elsewhere the call does nothing.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    # Looked up here, in the parent: between fork and exec nothing may be imported or loaded.
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_the_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent_pid:  # the parent died before the call
            os._exit(1)

    return ask_the_kernel
