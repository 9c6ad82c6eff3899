"""The demonstration from beginning to end, as ``make demo`` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(150)
def test_day_of_the_card_is_as_expected_and_leaves_nothing_behind(data_dir: Path) -> None:
    # A directory of its own to work in: another demonstration may run beside it.
    environment = os.environ | {"TMPDIR": str(data_dir)}
    done = subprocess.run(
        [sys.executable, "-m", "clients.demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=140,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers were as expected" in done.stdout
    assert "✗" not in done.stdout
    assert "clean" in done.stdout
    assert "Traceback" not in done.stderr
    assert not list(data_dir.iterdir())
