"""Where each card of a generator is: free, in one greenlet's hand, behind a code on a phone, or reported lost.

A card is in exactly one place, so no two greenlets ever use one card: its transaction counters reach the core in order.
Nothing here waits, so no greenlet is switched in between and no lock is needed.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from clients.demo.residents import Resident


class NoFreeCardError(Exception):
    """Every card is in use: the run needs more cards for its rate."""


@dataclass(frozen=True, slots=True)
class CodeOnPhone:
    """A card code that was issued and not yet shown to anybody."""

    resident: Resident
    card_code: str
    usable_until_s: float


class CardPool:
    """The cards of one generator.

    Args:
        residents: with their cards, all in use.
    """

    def __init__(self, residents: Sequence[Resident]) -> None:
        self._free = deque(residents)
        self._codes: deque[CodeOnPhone] = deque()
        self._lost: deque[Resident] = deque()

    def take(self, *, now_s: float) -> Resident:
        """The free card that rested longest; a code nobody came to show is given up when no card is free.

        Raises:
            NoFreeCardError: there is none.
        """
        while self._codes and self._codes[0].usable_until_s <= now_s:
            self._free.append(self._codes.popleft().resident)
        if self._free:
            return self._free.popleft()
        if self._codes:
            return self._codes.popleft().resident
        raise NoFreeCardError

    def give_back(self, resident: Resident) -> None:
        """Frees a card in use."""
        self._free.append(resident)

    def keep_code(self, code: CodeOnPhone) -> None:
        """Keeps a card with its fresh code until somebody shows it; lives must not differ."""
        self._codes.append(code)

    def show_code(self, *, now_s: float) -> CodeOnPhone | None:
        """The newest code, as holders show a code right after they opened it; None when there is no living one."""
        if self._codes and self._codes[-1].usable_until_s > now_s:
            return self._codes.pop()
        return None

    def lose(self, resident: Resident) -> None:
        """Keeps a card that was reported lost."""
        self._lost.append(resident)

    def find_lost(self) -> Resident | None:
        """The card that is lost longest, or None."""
        return self._lost.popleft() if self._lost else None
