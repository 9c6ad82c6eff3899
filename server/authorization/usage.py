"""What a card has used of its limits, by channel: amounts and counts of the day and the month, and a velocity window.

Packed into one column of the card's row, ``card_states.usage``, because every money operation reads and writes it and a
card uses few channels. Pure. Big-endian, amounts in 分: a head of 2 bytes, then 26 for each channel that was used::

    business day 2 (days since 2000-01-01)
    channel 1 ‖ count of the day 2 ‖ count of the month 2 ‖ amount of the day 8 ‖ amount of the month 8
        ‖ velocity window began 4 (unix s) ‖ operations in the window 1

Day and month are those of the business date; empty means that nothing was used yet.
"""

from datetime import date, timedelta
from functools import lru_cache
from struct import Struct

from server.rulebook.rules import Channel

EPOCH = date(2000, 1, 1)
_HEAD = Struct(">H")
_ENTRY = Struct(">BHHqqIB")
_COUNT_MAX = 65_535
_VELOCITY_MAX = 255


@lru_cache(maxsize=16)
def day_number(business_date: date) -> int:
    """Days since 2000-01-01."""
    return (business_date - EPOCH).days


@lru_cache(maxsize=64)
def _month_number(day: int) -> int:
    month = EPOCH + timedelta(days=day)
    return month.year * 12 + month.month


class Usage:
    """A working copy; ``pack`` gives the column's bytes back."""

    __slots__ = ("_day", "_entries")

    def __init__(self, packed: bytes, business_date: date) -> None:
        """What counts on ``business_date``: what belongs to earlier days and months is left out."""
        today = day_number(business_date)
        # Channel to [count of the day, of the month, amount of the day, of the month, window began, count in it].
        self._entries: dict[int, list[int]] = {}
        self._day = today
        if not packed:
            return
        (day,) = _HEAD.unpack_from(packed)
        # Past a cut-off a worker may still decide for the day before: it is counted to the later one.
        self._day = max(day, today)
        for channel, *entry in _ENTRY.iter_unpack(memoryview(packed)[_HEAD.size :]):
            if day < today:
                entry[0] = entry[2] = 0
                if _month_number(day) != _month_number(today):
                    entry[1] = entry[3] = 0
            self._entries[channel] = entry

    def of(self, channel: Channel) -> tuple[int, int, int, int]:
        """Count of the day, count of the month, amount of the day and of the month in 分."""
        entry = self._entries.get(channel)
        return (0, 0, 0, 0) if entry is None else (entry[0], entry[1], entry[2], entry[3])

    @property
    def day_amount_minor(self) -> int:
        """Amount of the day over all channels."""
        return sum(entry[2] for entry in self._entries.values())

    def in_window(self, channel: Channel, *, now_s: int, window_s: int) -> int:
        """Operations since the channel's velocity window began; 0 when it is over."""
        entry = self._entries.get(channel)
        return entry[5] if entry is not None and now_s - entry[4] < window_s else 0

    def add(self, channel: Channel, amount_minor: int, *, now_s: int, window_s: int) -> None:
        """Counts an approved operation; counts stop at what they can hold."""
        in_window = self.in_window(channel, now_s=now_s, window_s=window_s)
        entry = self._entries.setdefault(channel, [0, 0, 0, 0, 0, 0])
        entry[0] = min(entry[0] + 1, _COUNT_MAX)
        entry[1] = min(entry[1] + 1, _COUNT_MAX)
        entry[2] += amount_minor
        entry[3] += amount_minor
        if not in_window:
            entry[4] = now_s
        entry[5] = min(in_window + 1, _VELOCITY_MAX)

    def give_back(self, channel: Channel, amount_minor: int, *, used_on: date, is_whole: bool) -> None:
        """Takes back what an operation of ``used_on`` used, as far as it still counts; ``is_whole`` its count too."""
        self._change(channel, -amount_minor, -is_whole, used_on)

    def take_again(self, channel: Channel, amount_minor: int, *, used_on: date, is_whole: bool) -> None:
        """Counts again what was given back; no window moves, because the operation was before."""
        self._change(channel, amount_minor, is_whole, used_on)

    def _change(self, channel: Channel, amount_minor: int, count: int, used_on: date) -> None:
        entry = self._entries.get(channel)
        day = day_number(used_on)
        if entry is None or _month_number(day) != _month_number(self._day):
            return
        entry[3] = max(0, entry[3] + amount_minor)
        entry[1] = min(max(0, entry[1] + count), _COUNT_MAX)
        if day == self._day:
            entry[2] = max(0, entry[2] + amount_minor)
            entry[0] = min(max(0, entry[0] + count), _COUNT_MAX)

    def pack(self) -> bytes:
        """The column's bytes."""
        return _HEAD.pack(self._day) + b"".join(
            _ENTRY.pack(channel, *entry) for channel, entry in self._entries.items()
        )
