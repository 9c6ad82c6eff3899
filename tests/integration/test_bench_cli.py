"""``onecard bench`` as a user runs it, with the suites that need no core."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.timeout(90)
def test_result_file_holds_every_figure_and_what_it_depends_on(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    flags = ["--seconds", "0.5", "--warmup", "0", "--workers", "2", "--connections", "4", "--repeat", "2"]
    done = _bench("echo", "crypto", *flags, "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "ARQC TDES with pyemv" in done.stdout
    result = json.loads(path.read_text())
    assert set(result["rates_per_s"]) == {"echo", "crypto"}
    assert result["rates_per_s"]["echo"]["median"] > 0
    assert result["failures"] == []
    assert result["versions"]["grpcio"]
    assert result["machine"]["cores"] >= 1
    assert len(result["repeats"]) == 2
    echo = result["repeats"][0]["echo"]
    assert set(echo["latency_ms"]) == {"p50", "p99", "p99.9"}
    assert echo["approved"] == echo["answered"] > 0
    assert echo["facts"]["connections_per_worker"] == [2, 2]
    assert {"generator", "workers"} <= set(echo["cpu"])
    facts = result["repeats"][0]["crypto"]["facts"]
    assert {"ARQC SM4 singly", "ARQC TDES in batches", "PIN SM4_0 translated", "DUKPT AES straight"} <= set(
        facts["us_each"]
    )
    assert {"ARQC AES pkcs11 batch", "ARQC AES pkcs11 strict"} <= set(facts["us_each"])
    assert all(ratio > 0 for ratio in facts["ratios"].values())


def test_an_unknown_suite_is_refused() -> None:
    done = _bench("nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
