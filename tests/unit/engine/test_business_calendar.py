"""The date is that of the province, and the business date ends at the cut-off."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.business_calendar import BusinessCalendar
from server.engine.request_log import look_back_date

CALENDAR = BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff="23:00")
SHANGHAI = timezone(timedelta(hours=8))


@pytest.mark.parametrize(
    ("local", "calendar_date", "business_date"),
    [
        ("2026-11-23T00:00:00", "2026-11-23", "2026-11-23"),
        ("2026-11-23T22:59:59.999999", "2026-11-23", "2026-11-23"),
        ("2026-11-23T23:00:00", "2026-11-23", "2026-11-24"),
        ("2026-11-23T23:59:59.999999", "2026-11-23", "2026-11-24"),
        ("2026-11-24T00:00:00", "2026-11-24", "2026-11-24"),
        ("2026-12-31T23:00:00", "2026-12-31", "2027-01-01"),
        ("2028-02-28T23:00:00", "2028-02-28", "2028-02-29"),
    ],
)
def test_business_date_changes_at_the_cut_off(local: str, calendar_date: str, business_date: str) -> None:
    instant = datetime.fromisoformat(local).replace(tzinfo=SHANGHAI)
    for zone in (SHANGHAI, UTC, timezone(timedelta(hours=-11))):
        same = instant.astimezone(zone)
        assert CALENDAR.date_of(same) == date.fromisoformat(calendar_date)
        assert CALENDAR.business_date_of(same) == date.fromisoformat(business_date)


def test_cut_off_at_midnight_puts_every_instant_into_the_next_date() -> None:
    midnight = BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff="00:00")
    instant = datetime(2026, 11, 23, 12, tzinfo=SHANGHAI)
    assert midnight.business_date_of(instant) == date(2026, 11, 24)


@given(
    st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2040, 1, 1)),  # noqa: DTZ001 - made aware below
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=72)),
)
def test_look_back_reaches_every_id_of_its_hours(naive: datetime, age: timedelta) -> None:
    now = naive.replace(tzinfo=UTC)
    first_use = CALENDAR.business_date_of(now - age)
    assert look_back_date(CALENDAR.business_date_of(now), hours=72) <= first_use
