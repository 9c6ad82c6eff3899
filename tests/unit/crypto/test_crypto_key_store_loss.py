"""A token that is slow, lost, or refuses: PIN and chip operations fail closed, the rest goes on, and it comes back."""

import subprocess
import sys
from pathlib import Path

import pytest

SCENE = Path(__file__).with_name("token_scene.py")
ROOT = Path(__file__).parents[3]


def play(name: str, mode: str) -> None:
    played = subprocess.run(
        [sys.executable, str(SCENE), name, mode],
        capture_output=True,
        text=True,
        timeout=100,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"},
    )
    assert (played.stdout, played.returncode) == ("played\n", 0), played.stderr


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("mode", ["batch", "strict"])
def test_without_the_token_card_operations_fail_closed_until_it_is_back(mode):
    play("lost", mode)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("mode", ["batch", "strict"])
def test_a_token_that_does_not_answer_in_time_is_given_up_until_it_answers(mode):
    play("slow", mode)


@pytest.mark.usefixtures("token")
def test_keys_in_memory_are_used_only_while_the_token_is_there():
    play("memory", "batch")


@pytest.mark.usefixtures("token")
def test_a_session_key_lost_with_its_token_answers_no_card():
    play("session", "strict")


@pytest.mark.usefixtures("token")
def test_recoveries_leave_no_sessions_behind():
    play("sessions", "batch")


@pytest.mark.usefixtures("token")
def test_a_refused_pin_is_never_tried_again():
    play("changed_pin", "batch")


@pytest.mark.usefixtures("token")
def test_what_cannot_be_opened_is_told_in_one_line():
    play("refusals", "batch")
