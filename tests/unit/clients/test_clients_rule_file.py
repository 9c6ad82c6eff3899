"""Files of rules: what they say comes out as it stands there, and a mistake is told with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.rule_file import read_rules


def read(tmp_path: Path, name: str, text: str) -> list[tuple[str, Any]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [(subject, json.loads(content)) for subject, content in read_rules(path)]


def test_json_is_taken_as_it_is(tmp_path: Path) -> None:
    text = '[{"subject": "2", "content": {"name": "医保", "cash": true}}, {"subject": "3", "content": {}}]'
    assert read(tmp_path, "rules.json", text) == [("2", {"name": "医保", "cash": True}), ("3", {})]


def test_csv_tells_types_by_the_names_of_columns(tmp_path: Path) -> None:
    text = (
        "\ufeffcategory,subject,is_blocked,capture_tolerance_percent,merchant_categories,mac_key,hold_days\n"
        "5411,bank-a/M1,true,15,5812 5814,0123,30\n"
        "\n"
        '"","bank-a/M,2",,,,,\n'
    )
    assert read(tmp_path, "rules.CSV", text) == [
        (
            "bank-a/M1",
            {
                "category": "5411",
                "is_blocked": True,
                "capture_tolerance_percent": 15,
                "merchant_categories": ["5812", "5814"],
                "mac_key": "0123",
                "hold_days": 30,
            },
        ),
        ("bank-a/M,2", {}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "", "line 1: not JSON"),
        ("r.json", "[\n{", "line 2: not JSON"),
        ("r.json", "{}", "must be a list"),
        ("r.json", "[]", "there is no rule in it"),
        ("r.json", '[{"subject": "1"}]', "rule 1: must be"),
        ("r.json", '[{"subject": "1", "content": {}, "kind": "x"}]', "rule 1: must be"),
        ("r.json", '[{"subject": 1, "content": {}}]', "rule 1: the subject is a text"),
        ("r.json", '[{"subject": "1", "content": "{}"}]', "rule 1: the subject is a text"),
        ("r.json", '[{"subject": "1", "content": {}}, {"subject": "1", "content": {}}]', "rule 2: the same"),
        ("r.csv", "", "the first line must name the columns"),
        ("r.csv", "subject\n", "there is no rule in it"),
        ("r.csv", "terminal,is_blocked\n", "the first line must name the columns"),
        ("r.csv", "subject,a,a\n", "the first line must name the columns"),
        ("r.csv", "subject,a\nx\n", "line 2: must have as many fields"),
        ("r.csv", "subject,day_count_max\nx,1\ny,many\n", "line 3: day_count_max must be a whole number"),
        ("r.csv", 'subject,a\n"x" y,1\n', "line 2: not CSV"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        read(tmp_path, name, text)
