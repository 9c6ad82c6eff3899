"""The measured suites on a real core: every acknowledged approval is in the books, and all cards are accepted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
def test_purchases_encoded_ahead_are_approved_stored_and_reconciled(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    flags = ["--seconds", "1", "--warmup", "0", "--workers", "2", "--connections", "4", "--cards", "300"]
    command = [sys.executable, "-m", "server.cli", "bench", "unary", "frames", *flags, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    assert result["failures"] == []
    acknowledged = 0
    for name in ("unary", "frames"):
        figures = result["repeats"][0][name]
        assert figures["errors"] == {}
        assert figures["declines"] == {}
        assert figures["approved"] == figures["answered"] > 0
        assert figures["facts"]["reconciled"]
        assert figures["facts"]["connections_per_worker"] == [2, 2]
        assert {"generator", "workers", "housekeeper", "postgresql"} <= set(figures["cpu"])
        acknowledged += figures["facts"]["approved_in_whole"]
        assert figures["facts"]["approvals_stored_so_far"] == acknowledged
