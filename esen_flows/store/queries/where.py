"""Conditions such as `kappa_300K > 10 and converged`, parsed here and nowhere else.

    condition  = and-part {"or" and-part}
    and-part   = not-part {"and" not-part}
    not-part   = "not" not-part | "(" condition ")" | comparison
    comparison = operand {operator operand}          10 < kappa_300K <= 50
    operand    = name | number | 'text' | true | false
    operator   = < <= > >= == = !=

A result that lacks a value fulfils no comparison with it, nor its negation. What reaches MongoDB is built from the
parsed tree: stored paths, plain values, and $and, $or, $eq, $ne, $gt, $gte, $lt, $lte.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from esen_flows.errors import InputError
from esen_flows.store.queries.fields import Field, find_field

LONGEST = 2000  # characters
DEEPEST = 20  # brackets and nots within each other
_TOKEN = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|==|!=|<|>|=)"
    r"|(?P<bracket>[()])",
    re.ASCII,
)
_OPERATORS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "=": "$eq", "==": "$eq", "!=": "$ne"}
_NEGATED = {"$lt": "$gte", "$gte": "$lt", "$gt": "$lte", "$lte": "$gt", "$eq": "$ne", "$ne": "$eq"}
_MIRRORED = {"$lt": "$gt", "$gt": "$lt", "$lte": "$gte", "$gte": "$lte", "$eq": "$eq", "$ne": "$ne"}
_ORDERS = ("$lt", "$lte", "$gt", "$gte")
_EQUALS = ("$eq", "$ne")
_ALLOWED = {
    "number": _ORDERS + _EQUALS,
    "date": _ORDERS,
    "text": _EQUALS,
    "list": _EQUALS,
    "boolean": _EQUALS,
}
_EXAMPLES = {
    "number": "a number",
    "date": "a date in quotes such as '2026-11-21'",
    "text": "a text in quotes",
    "list": "a text in quotes",
    "boolean": "true or false",
}
_INT64 = 2**63


@dataclass(frozen=True)
class Token:
    """A word of a condition; `position` counts from 1."""

    type: Literal["number", "text", "word", "operator", "bracket", "end"]
    text: str
    position: int

    @property
    def lower(self) -> str:
        """Keywords are read in any case; other words are not."""
        return self.text.lower() if self.type == "word" else self.text

    def __str__(self) -> str:
        return "the end" if self.type == "end" else repr(self.text[:80])


def where_filter(kind: str, condition: str) -> dict[str, Any]:
    """The MongoDB filter of a condition.

    Parameters
    ----------
    kind
        of result, or "structures"; it decides which names exist.
    condition
        see above.

    Raises
    ------
    InputError
        it cannot be read, names what does not exist, or is too long or too deep; with the position.
    """
    if not isinstance(condition, str):
        raise InputError(f"a condition is a text such as 'nsites < 10', got a {type(condition).__name__}")
    if len(condition) > LONGEST:
        raise InputError(f"the condition has {len(condition)} characters, more than {LONGEST}; ask in several queries")
    return _Parser(kind, _tokens(condition)).parse()


def _tokens(condition: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while True:
        position += len(condition[position:]) - len(condition[position:].lstrip())
        if position == len(condition):
            return [*tokens, Token("end", "", position + 1)]
        match = _TOKEN.match(condition, position)
        if match is None:
            raise InputError(
                f"cannot read the condition at position {position + 1}: {condition[position : position + 20]!r}; "
                "write it as: nsites < 10 and not (formula == 'SiO2' or spacegroup == 216)"
            )
        tokens.append(Token(match.lastgroup, match.group(), position + 1))  # type: ignore[arg-type]
        position = match.end()


class _Parser:
    """Recursive descent; a `not` is pushed down to the comparisons, so the filter holds no negation."""

    def __init__(self, kind: str, tokens: list[Token]) -> None:
        self._kind = kind
        self._tokens = tokens
        self._next = 0

    def parse(self) -> dict[str, Any]:
        condition = self._or(negated=False, depth=0)
        if self._token.type != "end":
            raise _fault(self._token, "expected 'and', 'or' or the end")
        return condition

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _or(self, negated: bool, depth: int) -> dict[str, Any]:
        parts = [self._and(negated, depth)]
        while self._token.lower == "or":
            self._take()
            parts.append(self._and(negated, depth))
        return _joined("$and" if negated else "$or", parts)

    def _and(self, negated: bool, depth: int) -> dict[str, Any]:
        parts = [self._not(negated, depth)]
        while self._token.lower == "and":
            self._take()
            parts.append(self._not(negated, depth))
        return _joined("$or" if negated else "$and", parts)

    def _not(self, negated: bool, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            raise _fault(self._token, f"more than {DEEPEST} brackets and nots within each other")
        if self._token.lower == "not":
            self._take()
            return self._not(not negated, depth + 1)
        if self._token.text != "(":
            return self._comparison(negated)
        opening = self._take()
        inside = self._or(negated, depth + 1)
        if self._token.text != ")":
            raise _fault(self._token, f"the bracket of position {opening.position} is not closed: expected ')'")
        self._take()
        return inside

    def _comparison(self, negated: bool) -> dict[str, Any]:
        left = self._operand()
        if self._token.type != "operator":
            return self._bare(left, negated)
        parts = []
        while self._token.type == "operator":
            operator, right = self._take(), self._operand()
            parts.append(self._compare(left, _OPERATORS[operator.text], right, negated))
            left = right
        return _joined("$or" if negated else "$and", parts)

    def _operand(self) -> Token:
        token = self._token
        if token.type not in ("number", "text", "word") or token.lower in ("and", "or", "not"):
            raise _fault(token, "expected a name, a number or a text in quotes")
        return self._take()

    def _bare(self, name: Token, negated: bool) -> dict[str, Any]:
        if not _is_name(name):
            raise _fault(name, "a value alone is no condition: expected a comparison with a name")
        field = self._field(name)
        if field.type != "boolean":
            raise _fault(name, f"{name.text} is a {field.type}, not true or false: expected a comparison")
        return _leaf(field, "$eq", not negated)

    def _compare(self, left: Token, operator: str, right: Token, negated: bool) -> dict[str, Any]:
        if _is_name(left) == _is_name(right):
            raise _fault(right, "a comparison is between a name and a value (texts are in quotes)")
        name, literal = (left, right) if _is_name(left) else (right, left)
        if name is right:
            operator = _MIRRORED[operator]
        field = self._field(name)
        if operator not in _ALLOWED[field.type]:
            known = " ".join(sign for sign, name_ in _OPERATORS.items() if name_ in _ALLOWED[field.type])
            raise _fault(name, f"{name.text} is a {field.type}; it can be compared by {known}")
        return _leaf(field, _NEGATED[operator] if negated else operator, _value(name, field, literal))

    def _field(self, name: Token) -> Field:
        try:
            return find_field(self._kind, name.text)
        except InputError as error:
            raise InputError(f"cannot read the condition at position {name.position}: {error}") from None


def _is_name(token: Token) -> bool:
    return token.type == "word" and token.lower not in ("true", "false")


def _value(name: Token, field: Field, literal: Token) -> Any:
    """A literal as the plain value that is stored."""
    found = {"number": "number", "text": "text", "word": "boolean"}[literal.type]
    if found != {"number": "number", "boolean": "boolean"}.get(field.type, "text"):
        raise _fault(literal, f"{name.text} is compared with {_EXAMPLES[field.type]}")
    if found == "boolean":
        return literal.lower == "true"
    if found == "number":
        return _number(literal)
    text = literal.text[1:-1]
    try:
        if field.type == "date":
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        return field.canonical(text) if field.canonical else text
    except (ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{name.text} is compared with {_EXAMPLES['date']}"
        raise _fault(literal, reason) from None


def _number(literal: Token) -> int | float:
    value = float(literal.text)
    if not math.isfinite(value):
        raise _fault(literal, "the number is too large")
    if re.fullmatch(r"[+-]?\d+", literal.text) and abs(value) < _INT64:
        return int(literal.text)
    return value


def _leaf(field: Field, operator: str, value: Any) -> dict[str, Any]:
    if field.type == "boolean":
        # Two values: not equal is equal to the other one, and an index can look for it.
        wanted = value if operator == "$eq" else not value
        operator, value = "$eq", wanted
        if field.true_text is not None:
            operator, value = ("$eq" if wanted else "$ne"), field.true_text
    parts: list[dict[str, Any]] = [{field.path: {operator: value}}]
    if operator == "$ne":
        parts.append({field.path: {"$ne": None}})  # what is not there is not different either
    if field.only_if is not None:
        parts.append({field.only_if[0]: {"$eq": field.only_if[1]}})
    return _joined("$and", parts)


def _joined(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {operator: parts}


def _fault(token: Token, what: str) -> InputError:
    return InputError(f"cannot read the condition at position {token.position} ({token}): {what}")
