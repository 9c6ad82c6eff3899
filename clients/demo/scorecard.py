"""What was expected of the core and what it answered: one check mark per city and scene, and the list of mismatches."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rich.console import Console
from rich.table import Table

from clients.errors import OneCardCallError


class Scene(Enum):
    """The columns of the tables: what is played in every city."""

    ISSUE = "issue\ndeposit"
    CHIP = "chip"
    CODE = "QR"
    NAME = "name\nnumber"
    AUTHENTICATE = "card\ngenuine"
    PURCHASE = "buy\nARPC"
    DECLINE_51 = "51\nfunds"
    REPLAY = "same id\nreplay"
    REUSED_ID = "same id\nchanged"
    TAMPERED = "bad\nARQC 05"
    CODE_USED = "QR\ntwice"
    PURPOSE = "wrong\npurpose"
    PIN = "PIN\n3 tries"
    SCRIPT = "issuer\nscript"
    LOSS = "lost:\nrefused"
    CASH = "cash\nPIN"
    TAP = "bus\ntaps"
    MEDICAL = "medical\nwallet"
    BENEFIT = "benefit\npaid, spent"
    HOTEL = "hotel\nhold"
    REFUND = "refund\n2 parts, 64"
    REVERSAL = "reversed\nafter"
    REVERSED_FIRST = "reversed\nbefore"
    PETROL = "petrol\npart 10"
    CODE_PAYMENT = "QR pays\nonce"
    CARD_ON_FILE = "card\non file"
    TRANSFER = "transfer\nnext city"
    LOOK_UP = "look-up\nRRN"


MONEY_SCENES = (
    *(Scene.CASH, Scene.TAP, Scene.MEDICAL, Scene.BENEFIT, Scene.HOTEL, Scene.REFUND, Scene.REVERSAL),
    *(
        Scene.REVERSED_FIRST,
        Scene.PETROL,
        Scene.CODE_PAYMENT,
        Scene.CARD_ON_FILE,
        Scene.TRANSFER,
        Scene.LOOK_UP,
    ),
)
TABLES: dict[str, tuple[Scene, ...]] = {
    "A day of the card": tuple(scene for scene in Scene if scene not in MONEY_SCENES),
    "Its money": MONEY_SCENES,
}


@dataclass(frozen=True)
class Mismatch:
    """One answer that was not as expected."""

    place: str
    scene: str
    what: str
    expected: str
    got: str


@dataclass
class Scorecard:
    """Collects every comparison of the day."""

    held: dict[tuple[str, Scene], int] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)
    events: list[tuple[str, str, bool]] = field(default_factory=list)
    compared: int = 0

    def expect(self, place: str, scene: Scene, what: str, *, expected: Any, got: Any) -> None:
        """Compares one answer with what it must be."""
        self.compared += 1
        if expected == got:
            self.held[place, scene] = self.held.get((place, scene), 0) + 1
        else:
            self.mismatches.append(Mismatch(place, scene.name, what, str(expected), str(got)))

    def event(self, title: str, text: str, *, expected: Any, got: Any) -> None:
        """Compares the result of something that concerns the whole province."""
        self.compared += 1
        as_expected = expected == got
        self.events.append((title, text, as_expected))
        if not as_expected:
            self.mismatches.append(Mismatch("province", title, text, str(expected), str(got)))

    def failed(self, place: str, scene: Scene, error: Exception) -> None:
        """Notes that a scene ended early."""
        self._note_end(place, scene.name, error)

    def broken_off(self, error: Exception) -> None:
        """Notes that the day ended early."""
        self._note_end("province", "the day", error)

    def _note_end(self, place: str, scene: str, error: Exception) -> None:
        got = f"{type(error).__name__}: {error}"
        self.mismatches.append(Mismatch(place, scene, "its end", "every answer", got))

    def show(self, console: Console, places: dict[str, str]) -> None:
        """Prints the tables with one row per city, then the events, then every mismatch."""
        for title, scenes in TABLES.items():
            console.print(self._table(title, scenes, places))
        events = Table(title="Events of the province", show_header=False, padding=(0, 1))
        for title, text, as_expected in self.events:
            events.add_row("[green]✓[/]" if as_expected else "[red]✗[/]", title, text)
        console.print(events)
        if self.mismatches:
            wrong = Table("where", "scene", "what", "expected", "got", title="Not as expected")
            for m in self.mismatches:
                wrong.add_row(m.place, m.scene, m.what, m.expected, m.got)
            console.print(wrong)

    def _table(self, title: str, scenes: Sequence[Scene], places: dict[str, str]) -> Table:
        broken = {(mismatch.place, mismatch.scene) for mismatch in self.mismatches}
        table = Table(title=title, padding=(0, 1))
        table.add_column("city", no_wrap=True)
        for scene in scenes:
            table.add_column(scene.value, justify="center")
        for place, name in places.items():
            cells = []
            for scene in scenes:
                is_broken = (place, scene.name) in broken or (place, scene) not in self.held
                cells.append("[red]✗[/]" if is_broken else "[green]✓[/]")
            table.add_row(f"{place} {name}", *cells)
        return table


async def refusal_of(call: Awaitable[Any]) -> str:
    """How a call is refused, as ``CODE REASON field``; "an answer" when it is not.

    Errors that say nothing about the request (the core is gone) are raised, not told.
    """
    try:
        await call
    except OneCardCallError as error:
        return " ".join(part for part in (error.code.name, error.reason, error.field) if part)
    return "an answer"
