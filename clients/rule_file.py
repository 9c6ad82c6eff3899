"""Rules of a fleet from a file: JSON as it is, or CSV with one rule in a line. The core checks what they say."""

import csv
import json
from pathlib import Path
from typing import Any

SUBJECT = "subject"
# What the last word of a column's name tells of its values; all others but true and false are texts.
NUMBER_ENDS = ("_minor", "_max", "_s", "_percent", "_days")
LIST_COLUMNS = ("merchant_categories",)
TRUTHS = {"true": True, "false": False}


def read_rules(path: Path) -> list[tuple[str, str]]:
    """Pairs of a subject and a JSON object, in the order of the file.

    Raises:
        ValueError: it cannot be read as JSON or CSV, or names a subject twice; says where.
        OSError: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8-sig")
    rules = _from_csv(text) if path.suffix.lower() == ".csv" else _from_json(text)
    first: dict[str, int] = {}
    for number, (subject, _) in enumerate(rules, start=1):
        if first.setdefault(subject, number) != number:
            raise ValueError(f"rule {number}: the same subject as rule {first[subject]}")
    if not rules:
        raise ValueError("there is no rule in it")
    return rules


def _from_json(text: str) -> list[tuple[str, str]]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not JSON") from None
    if not isinstance(entries, list):
        raise ValueError('must be a list of {"subject": …, "content": {…}}')
    rules = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or entry.keys() != {SUBJECT, "content"}:
            raise ValueError(f'rule {number}: must be {{"subject": …, "content": {{…}}}}')
        subject, content = entry[SUBJECT], entry["content"]
        if not isinstance(subject, str) or not isinstance(content, dict):
            raise ValueError(f"rule {number}: the subject is a text, the content an object")
        rules.append((subject, _written(content)))
    return rules


def _from_csv(text: str) -> list[tuple[str, str]]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        lines = list(reader)
    except csv.Error:
        raise ValueError(f"line {reader.line_num}: not CSV") from None
    columns, rules = (lines[0] if lines else []), []
    if SUBJECT not in columns or len(set(columns)) != len(columns):
        raise ValueError("the first line must name the columns, one of them subject, each once")
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(columns):
            raise ValueError(f"line {number}: must have as many fields as the first")
        cells = dict(zip(columns, line, strict=True))
        subject = cells.pop(SUBJECT)
        try:
            # An empty cell leaves the key out: the rule's default.
            content = {column: _value(column, cell) for column, cell in cells.items() if cell}
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        rules.append((subject, _written(content)))
    return rules


def _value(column: str, cell: str) -> Any:
    if column in LIST_COLUMNS:
        return cell.split()
    if column.endswith(NUMBER_ENDS):
        if not (cell.isascii() and cell.isdecimal()):
            raise ValueError(f"{column} must be a whole number")
        return int(cell)
    return TRUTHS.get(cell, cell)


def _written(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True)
