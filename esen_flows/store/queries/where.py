"""Conditions such as `kappa_300K > 10 and converged` as MongoDB filters.

    condition  = and-part {"or" and-part}
    and-part   = not-part {"and" not-part}
    not-part   = "not" not-part | "(" condition ")" | comparison
    comparison = operand {operator operand}          10 < kappa_300K <= 50
    operand    = name | number | 'text' | true | false
    operator   = < <= > >= == = !=

Python's parser finds the structure of a condition; nothing is evaluated. A result that lacks a value fulfils neither a
comparison with that value nor its negation. A filter holds only stored paths, plain values, and $and, $or, $eq, $ne,
$gt, $gte, $lt, $lte.
"""

import ast
import math
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from esen_flows.errors import InputError
from esen_flows.store.queries.fields import Field, find_field

LONGEST = 2000  # characters
DEEPEST = 20  # nested brackets and nots
_TOKEN = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'[^'\ud800-\udfff]*'|\"[^\"\ud800-\udfff]*\")"  # MongoDB takes no lone surrogates
    r"|(?P<keyword>(?i:(?:and|or|not)\b))"
    r"|(?P<boolean>(?i:(?:true|false)\b))"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|==|!=|<|>|=)"
    r"|(?P<bracket>[()])"
    r"|(?P<unknown>(?u:\S+))",
    re.ASCII,
)
# Width of a token in the source that Python parses, so that the index of a node's token is its column // _WIDTH.
_WIDTH = 4
_HELP = "write it as: nsites < 10 and not (formula == 'SiO2' or spacegroup == 216)"
_OPERATORS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "=": "$eq", "==": "$eq", "!=": "$ne"}
_NEGATED = {"$lt": "$gte", "$gte": "$lt", "$gt": "$lte", "$lte": "$gt", "$eq": "$ne", "$ne": "$eq"}
_MIRRORED = {"$lt": "$gt", "$gt": "$lt", "$lte": "$gte", "$gte": "$lte", "$eq": "$eq", "$ne": "$ne"}
_ORDERS, _EQUALS = ("$lt", "$lte", "$gt", "$gte"), ("$eq", "$ne")
# Type of a field: the operators that compare it, and what it is compared with.
_TYPES = {
    "number": (_ORDERS + _EQUALS, "a number"),
    "date": (_ORDERS, "a date in quotes such as '2026-11-21'"),
    "text": (_EQUALS, "a text in quotes"),
    "list": (_EQUALS, "a text in quotes"),
    "boolean": (_EQUALS, "true or false"),
}


class _Token(NamedTuple):
    type: str  # the name of a group of _TOKEN, or "end"
    text: str
    position: int  # counted from 1

    @property
    def python(self) -> str:
        """The token in the source that Python parses, where all operands and all operators are the same."""
        if self.type in ("keyword", "bracket"):
            return self.text.lower()
        return "<" if self.type == "operator" else "x"

    def fault(self, reason: str) -> InputError:
        found = repr(self.text[:80]) if self.text else "the end"
        return InputError(f"cannot read the condition at position {self.position} ({found}): {reason}")


def where_filter(kind: str, condition: str) -> dict[str, Any]:
    """The MongoDB filter of a condition.

    Parameters
    ----------
    kind
        Kind of result, or "structures"; it decides which names exist.
    condition
        Condition in the language above, at most 2000 characters.

    Returns
    -------
    dict
        Filter for `find`.

    Raises
    ------
    InputError
        The condition cannot be read, names a value that does not exist, or is too long or too deeply nested. The
        message tells the position.

    Examples
    --------
    >>> where_filter("relax", "nsites < 10 and not converged")
    {'$and': [{'nsites': {'$lt': 10}}, {'summary.converged': {'$eq': False}}]}
    >>> where_filter("relax", "nsites < 10 and convergd")
    Traceback (most recent call last):
    esen_flows.errors.InputError: cannot read the condition at position 17: ... did you mean converged? ...
    """
    if not isinstance(condition, str):
        raise InputError(f"a condition is a text such as 'nsites < 10', got a {type(condition).__name__}")
    if len(condition) > LONGEST:
        raise InputError(f"the condition has {len(condition)} characters, more than {LONGEST}; ask in several queries")
    tokens = [_Token(match.lastgroup or "", match.group(), match.start() + 1) for match in _TOKEN.finditer(condition)]
    _check_sequence(tokens)
    source = "".join(token.python.ljust(_WIDTH) for token in tokens)
    tokens.append(_Token("end", "", len(condition) + 1))
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        # The offset counts from 1; at the end of the source it is 0, which gives the last token.
        raise tokens[((error.offset or 0) - 1) // _WIDTH].fault(f"{error.msg}; {_HELP}") from None
    return _FilterBuilder(kind, tokens).build(tree.body, negated=False)


def _check_sequence(tokens: list[_Token]) -> None:
    """Refuse unknown characters, calls, and nesting that is too deep for Python's recursive parser."""
    depth, outer = 0, [0]  # depth of this token, and at the start of every open bracket
    before = ""
    for token in tokens:
        word = token.python
        if token.type == "unknown" or (before in ("x", ")") and word in ("x", "(", "not")):
            raise token.fault(_HELP)
        if word in ("(", "not"):
            depth += 1
        if depth > DEEPEST:
            raise token.fault(f"more than {DEEPEST} nested brackets and nots")
        if word == "(":
            outer.append(depth)
        elif word in (")", "and", "or"):  # these end the nots before them
            outer = (outer[:-1] or [0]) if word == ")" else outer
            depth = outer[-1]
        before = word


class _FilterBuilder:
    """Turns a syntax tree into a filter. A `not` moves down to the comparisons, so a filter has no negation."""

    def __init__(self, kind: str, tokens: list[_Token]) -> None:
        self._kind = kind
        self._tokens = tokens

    def build(self, node: ast.expr, negated: bool) -> dict[str, Any]:
        if isinstance(node, ast.BoolOp):
            operator = "$or" if isinstance(node.op, ast.Or) != negated else "$and"
            return _joined(operator, [self.build(part, negated) for part in node.values])
        if isinstance(node, ast.UnaryOp):
            return self.build(node.operand, not negated)
        last = node.comparators[-1] if isinstance(node, ast.Compare) else node
        tokens = self._tokens[node.col_offset // _WIDTH : last.col_offset // _WIDTH + 1]
        for token in tokens:
            if token.type == "bracket":
                raise token.fault(f"brackets are around conditions; {_HELP}")
        if len(tokens) == 1:
            return self._bare(tokens[0], negated)
        triples = zip(tokens[::2], tokens[1::2], tokens[2::2], strict=False)
        parts = [self._compare(left, sign, right, negated) for left, sign, right in triples]
        return _joined("$or" if negated else "$and", parts)

    def _bare(self, name: _Token, negated: bool) -> dict[str, Any]:
        if name.type != "name":
            raise name.fault("a value alone is no condition: expected a comparison with a name")
        field = self._field(name)
        if field.type != "boolean":
            raise name.fault(f"{name.text} is a {field.type}, not true or false: expected a comparison")
        return _leaf(field, "$eq", not negated)

    def _compare(self, left: _Token, sign: _Token, right: _Token, negated: bool) -> dict[str, Any]:
        name, literal, operator = left, right, _OPERATORS[sign.text]
        if right.type == "name":
            name, literal, operator = right, left, _MIRRORED[operator]
        if name.type != "name" or literal.type == "name":
            raise right.fault("a comparison is between a name and a value (texts are in quotes)")
        field = self._field(name)
        allowed, _ = _TYPES[field.type]
        if operator not in allowed:
            known = " ".join(text for text, name_ in _OPERATORS.items() if name_ in allowed)
            raise name.fault(f"{name.text} is a {field.type}; it can be compared by {known}")
        return _leaf(field, _NEGATED[operator] if negated else operator, _value(name, field, literal))

    def _field(self, name: _Token) -> Field:
        try:
            return find_field(self._kind, name.text)
        except InputError as error:
            raise InputError(f"cannot read the condition at position {name.position}: {error}") from None


def _value(name: _Token, field: Field, literal: _Token) -> Any:
    """The value of a literal as it is stored."""
    expected = f"{name.text} is compared with {_TYPES[field.type][1]}"
    if literal.type != (field.type if field.type in ("number", "boolean") else "text"):
        raise literal.fault(expected)
    if literal.type == "boolean":
        return literal.text.lower() == "true"
    if literal.type == "number":
        return _number(literal)
    text = literal.text[1:-1]
    try:
        if field.type == "date":
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        return field.canonical(text) if field.canonical else text
    except (ValueError, OverflowError) as error:
        raise literal.fault(str(error)[:300] if isinstance(error, InputError) else expected) from None


def _number(literal: _Token) -> int | float:
    value = float(literal.text)
    if not math.isfinite(value):
        raise literal.fault("the number is too large")
    whole = literal.text.lstrip("+-").isdecimal() and abs(value) < 2**63  # integers of BSON have 64 bits
    return int(literal.text) if whole else value


def _leaf(field: Field, operator: str, value: Any) -> dict[str, Any]:
    if field.type == "boolean":
        # Of two values, not equal means equal to the other one, which an index can look up.
        wanted = value if operator == "$eq" else not value
        operator, value = "$eq", wanted
        if field.true_text is not None:
            operator, value = ("$eq" if wanted else "$ne"), field.true_text
    parts: list[dict[str, Any]] = [{field.path: {operator: value}}]
    if operator == "$ne":
        parts.append({field.path: {"$ne": None}})  # a missing value is not a different one
    if field.only_if is not None:
        parts.append({field.only_if[0]: {"$eq": field.only_if[1]}})
    return _joined("$and", parts)


def _joined(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {operator: parts}
