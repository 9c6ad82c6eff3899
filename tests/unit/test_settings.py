"""Settings: one table, bounds with reasons, and a password that never shows."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.cli import main
from server.errors import ConfigurationError
from server.settings import Settings, masked_dsn

TLS = {"tls_certificate": Path("c.pem"), "tls_key": Path("k.pem"), "tls_client_ca": Path("ca.pem")}
DSN = "postgresql://core:hunter2@db.example:5433/onecard?sslmode=require&password=hunter3"


@pytest.mark.parametrize(
    "field",
    [f for f in dataclasses.fields(Settings) if f.metadata["minimum"] is not None],
    ids=lambda f: f.name,
)
def test_every_number_is_refused_just_outside_its_bounds(field: "dataclasses.Field[int]") -> None:
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    # A request id may be looked up only where operations still are.
    beside = {"operations_days": 36_500} if field.name == "request_log_hours_min" else {}
    Settings(**{field.name: minimum} | beside)
    Settings(**{field.name: maximum} | beside)
    for outside in (minimum - 1, maximum + 1):
        with pytest.raises(ConfigurationError, match=field.name):
            Settings(**{field.name: outside})


@pytest.mark.parametrize(
    ("name", "below", "law"),
    [
        ("log_days", 179, "180 days"),
        ("access_log_days", 1095, "3 years"),
        ("request_log_hours_min", 71, "72 hours"),
    ],
)
def test_retention_below_the_law_is_refused_with_the_reason(name: str, below: int, law: str) -> None:
    with pytest.raises(ConfigurationError, match=law):
        Settings(**{name: below})


def test_operations_stay_longer_than_request_ids_are_looked_up() -> None:
    Settings(operations_days=9, request_log_hours_min=168)
    with pytest.raises(ConfigurationError, match=r"operations_days is 8, .* for 8 days"):
        Settings(operations_days=8, request_log_hours_min=168)


def test_tls_files_go_together() -> None:
    with pytest.raises(ConfigurationError, match="all three or none"):
        Settings(tls_certificate=Path("c.pem"))


def test_dsn_needs_tls_files() -> None:
    with pytest.raises(ConfigurationError, match="dsn needs tls_certificate"):
        Settings(dsn=DSN)


def test_dsn_of_another_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="postgresql://"):
        Settings(dsn="mysql://db/onecard", **TLS)


@pytest.mark.parametrize("cutoff", ["24:00", "7:00", "23:60", "noon", "23:00\n"])
def test_cutoff_is_a_time_of_day(cutoff: str) -> None:
    with pytest.raises(ConfigurationError, match="business_day_cutoff"):
        Settings(business_day_cutoff=cutoff)


def test_password_is_in_no_text_of_the_settings() -> None:
    settings = Settings(dsn=DSN, **TLS)
    assert "hunter" not in repr(settings) + str(settings)
    assert masked_dsn(DSN) == "postgresql://core@db.example:5433/onecard"


def test_dsn_that_cannot_be_taken_apart_is_masked_whole() -> None:
    assert "hunter2" not in masked_dsn("postgresql://core:hunter2@[db:x/onecard")
    assert "hunter2" not in masked_dsn("postgresql://core:hunter2@db:port/onecard")


def test_settings_survive_the_way_to_a_child() -> None:
    settings = Settings(dsn=DSN, workers=3, key_store_dir=Path("keys"), **TLS)
    assert Settings.from_json(settings.to_json()) == settings


def test_every_setting_has_a_flag_and_a_variable_in_the_help() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200).output
    for field in dataclasses.fields(Settings):
        if field.metadata["is_flag"]:
            assert f"--{field.name.replace('_', '-')}" in text
            assert f"ONECARD_{field.name.upper()}" in text


@pytest.mark.parametrize("source", ["flag", "variable"])
def test_refused_value_is_one_line_and_exit_2(source: str) -> None:
    arguments = ["serve", "--log-days", "30"] if source == "flag" else ["serve"]
    result = CliRunner().invoke(
        main, arguments, env={"ONECARD_LOG_DAYS": "30"} if source == "variable" else {}
    )
    assert result.exit_code == 2
    assert result.stderr == (
        "onecard: log_days is 30, the least is 180: the law keeps network logs for at least 180 days\n"
    )
