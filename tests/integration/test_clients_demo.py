"""The demonstration from beginning to end, as ``make demo`` runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS_MAX = 60


def leftovers() -> set[Path]:
    return set(Path("/tmp").glob("onecard-demo-*"))  # noqa: S108 - where the demonstration works


@pytest.mark.timeout(150)
def test_day_of_the_card_is_as_expected_and_leaves_nothing_behind() -> None:
    before = leftovers()
    done = subprocess.run(
        [sys.executable, "-m", "clients.demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=140,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers were as expected" in done.stdout
    assert "✗" not in done.stdout
    assert "clean" in done.stdout
    assert "Traceback" not in done.stderr
    assert leftovers() <= before
