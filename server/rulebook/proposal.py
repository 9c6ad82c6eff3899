"""Proposed rules off the wire: each content and subject checked, so that nothing is kept that nobody can follow."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.errors import MalformedFieldError, RequestIdReusedError
from server.rulebook.rules import acquirer_of, check_subject, parse_content, parse_rule

RULES_PER_REQUEST_MAX = 5_000
RULES_PER_CHANGE_MAX = 200_000
JUSTIFICATION_CHARACTERS_MAX = 200


class ProposedRuleMessage(Protocol):
    """One content for one subject or many."""

    @property
    def content(self) -> str: ...
    @property
    def subjects(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedRules:
    """The rules of one request. ``places`` tells for each subject which of ``contents`` is its own, from 0."""

    contents: list[dict[str, Any]]
    subjects: list[str]
    places: list[int]

    def content_texts(self) -> list[str]:
        return [json.dumps(content, ensure_ascii=False, sort_keys=True) for content in self.contents]

    def path_of(self, acquirer: str) -> str:
        """The first field whose subject belongs to this participant, or is it."""
        index = next(n for n, subject in enumerate(self.subjects) if subject.partition("/")[0] == acquirer)
        place = self.places[index]
        return f"rules[{place}].subjects[{index - self.places.index(place)}]"


def justification(text: str) -> str:
    """
    Raises:
        MalformedFieldError: empty, too long, or not one line of text.
    """
    if not 1 <= len(text) <= JUSTIFICATION_CHARACTERS_MAX or not text.isprintable() or not text.strip():
        raise MalformedFieldError(
            "justification", f"must be 1 to {JUSTIFICATION_CHARACTERS_MAX} printable characters"
        )
    return text


def proposed_rules(kind: str, messages: Sequence[ProposedRuleMessage]) -> ProposedRules:
    """The rules of one request.

    Raises:
        MalformedFieldError: none or too many, or one is malformed; names it by its place.
    """
    if not 1 <= sum(len(message.subjects) for message in messages) <= RULES_PER_REQUEST_MAX:
        raise MalformedFieldError("rules", f"must have 1 to {RULES_PER_REQUEST_MAX} subjects in all")
    rules = ProposedRules(contents=[], subjects=[], places=[])
    seen: set[str] = set()
    for place, message in enumerate(messages):
        if not message.subjects:
            raise MalformedFieldError(f"rules[{place}].subjects", "must have at least one subject")
        path = f"rules[{place}].content"
        content = _checked(path, parse_content, message.content)
        _checked(path, parse_rule, kind, content)
        rules.contents.append(content)
        for number, subject in enumerate(message.subjects):
            try:
                check_subject(kind, subject)
            except ValueError as error:
                raise MalformedFieldError(f"rules[{place}].subjects[{number}]", str(error)) from None
            if subject in seen:
                raise MalformedFieldError(f"rules[{place}].subjects[{number}]", "must stand in a change once")
            seen.add(subject)
        rules.subjects.extend(message.subjects)
        rules.places.extend([place] * len(message.subjects))
    return rules


def rule_count(announced: int, rules: ProposedRules) -> int:
    """Rules of the whole change; 0 means those of this request.

    Raises:
        MalformedFieldError: fewer than there are here, or too many.
    """
    count = announced or len(rules.subjects)
    if not len(rules.subjects) <= count <= RULES_PER_CHANGE_MAX:
        raise MalformedFieldError(
            "rule_count", f"must be 0, or from the number of rules here to {RULES_PER_CHANGE_MAX}"
        )
    return count


def acquirers(kind: str, rules: ProposedRules) -> set[str]:
    """The participants that the subjects belong to."""
    return {acquirer for subject in rules.subjects if (acquirer := acquirer_of(kind, subject)) is not None}


def require_same_rules(kept: dict[str, str], rules: ProposedRules) -> None:
    """Compares with what a request brought before: JSON texts by subject.

    Raises:
        RequestIdReusedError: it brought others; names what differs.
    """
    if kept.keys() != set(rules.subjects):
        raise RequestIdReusedError("rules")
    for subject, place in zip(rules.subjects, rules.places, strict=True):
        if json.loads(kept[subject]) != rules.contents[place]:
            raise RequestIdReusedError(f"rules[{place}].content")


def _checked(path: str, check: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return check(*arguments)
    except ValueError as error:
        raise MalformedFieldError(path, str(error)) from None
