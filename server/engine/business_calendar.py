"""Which calendar date and which business date an instant belongs to.

The business date ends at the cut-off; what is decided later belongs to the next date.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class BusinessCalendar:
    """A time zone and a local cut-off time."""

    zone: ZoneInfo
    cutoff: time

    @classmethod
    def of(cls, *, time_zone: str, cutoff: str) -> "BusinessCalendar":
        """From an IANA zone name and ``HH:MM``."""
        return cls(ZoneInfo(time_zone), time.fromisoformat(cutoff))

    def date_of(self, instant: datetime) -> date:
        """Calendar date of an aware instant."""
        return instant.astimezone(self.zone).date()

    def business_date_of(self, instant: datetime) -> date:
        """Business date of an aware instant."""
        local = instant.astimezone(self.zone)
        return local.date() + timedelta(days=1) if local.time() >= self.cutoff else local.date()
