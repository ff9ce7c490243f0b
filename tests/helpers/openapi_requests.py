"""Requests from an OpenAPI description: good ones, and good ones with one thing made wrong."""

import copy
import json

from hypothesis import strategies as st

MOST_ROWS = 3


class Described:
    """An OpenAPI description as a source of requests.

    Args:
        description: the object at ``/openapi.json``.
    """

    def __init__(self, description):
        self.description = description
        self.bodies = {}
        for path, methods in description["paths"].items():
            for operation in methods.values():
                if "requestBody" in operation:
                    content = operation["requestBody"]["content"]["application/json"]
                    self.bodies[path] = content["schema"]

    def resolve(self, schema):
        while "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self.description["components"]["schemas"][name]
        return schema

    # ------------------------------------------------------------------ good
    def good(self, path):
        """Bodies that fit, without sessions; optional parts are left out now and then."""
        return st.integers(1, MOST_ROWS).flatmap(lambda rows: self.valid(self.bodies[path], rows))

    def valid(self, schema, rows):
        """What fits ``schema``; every batch in it has ``rows`` rows."""
        schema = self.resolve(schema)
        if "oneOf" in schema:
            return st.one_of([self.valid(option, rows) for option in schema["oneOf"]])
        return getattr(self, f"_{schema['type']}")(schema, rows)

    def _null(self, schema, rows):
        return st.none()

    def _boolean(self, schema, rows):
        return st.booleans()

    def _string(self, schema, rows):
        return st.text(max_size=5)

    def _integer(self, schema, rows):
        return st.integers(int(schema.get("minimum", -9)), int(schema.get("maximum", 9)))

    def _number(self, schema, rows):
        low, high = schema.get("minimum", -1e6), schema.get("maximum", 1e6)
        return st.floats(low, high, width=32) | st.integers(int(low) + 1, int(high) - 1)

    def _array(self, schema, rows):
        size = rows if schema.get("x-batch") else schema["minItems"]
        items = st.lists(self.valid(schema["items"], rows), min_size=size, max_size=size)
        if "contains" not in schema:
            return items
        wanted = schema["contains"]["const"]
        return st.tuples(items, st.integers(0, schema["minItems"] - 1)).map(
            lambda pair: [*pair[0][: pair[1]], wanted, *pair[0][pair[1] + 1 :]]
        )

    def _object(self, schema, rows):
        parts = {name: self.valid(part, rows) for name, part in schema["properties"].items()}
        parts.pop("session", None)
        required = set(schema.get("required", ()))
        optional = {name: part for name, part in parts.items() if name not in required}
        needed = {name: part for name, part in parts.items() if name in required}
        if schema.get("minProperties"):
            names = st.lists(st.sampled_from(sorted(optional)), min_size=1, unique=True)
            return names.flatmap(lambda some: st.fixed_dictionaries({n: optional[n] for n in some}))
        return st.fixed_dictionaries(needed, optional=optional)

    # ------------------------------------------------------------------ bad
    def bad(self, path):
        """Raw bodies, each a good one with one thing made wrong, or not one at all."""
        return st.one_of(
            self.good(path).flatmap(spoiled).map(to_bytes),
            self.good(path).map(to_bytes).flatmap(cut),
            self.good(path).map(to_bytes).flatmap(not_finite),
            st.sampled_from(sorted(HOPELESS)).map(HOPELESS.__getitem__),
            st.binary(max_size=40).filter(no_object),
        )


def to_bytes(body):
    return json.dumps(body).encode()


def no_object(text):
    try:
        return not isinstance(json.loads(text), dict)
    except ValueError:
        return True


HOPELESS = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"text"',
    "an empty object": b"{}",
    "deep": b'{"observation": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long number": b'{"observation": [' + b"9" * 5000 + b"]}",
    "an infinite number": b'{"observation": [1e999, 1, 1, 1, 1], "agents": {}}',
    "a name twice": b'{"observation": [1], "observation": [1]}',
    "no UTF-8": b"\xff\xfe{}",
    "another agent": b'{"agents": {"__proto__": {"observation": [1]}}, "observation": [[[[]]]]}',
}
"""What no path takes."""


def places(value, path=()):
    """Every place in a nest with what is there."""
    yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def replaced(body, path, value):
    if not path:
        return value
    out = copy.deepcopy(body)
    level = out
    for key in path[:-1]:
        level = level[key]
    level[path[-1]] = value
    return out


WRONG = [{}, "text", [], [[]], {"observation": 1}, [1.5, "a"], [None], 10**400]
"""What fits nowhere: no text, no empty list and no object without a name is ever asked for."""


def spoiled(body):
    """One place holds something that fits nowhere, a name is unknown, or a list has another length."""
    found = [(path, value) for path, value in places(body) if path]
    lists = [(path, value) for path, value in found if isinstance(value, list)]
    named = [(path, value) for path, value in places(body) if isinstance(value, dict)]
    return st.one_of(
        st.tuples(st.sampled_from(found), st.sampled_from(WRONG)).map(
            lambda pair: replaced(body, pair[0][0], pair[1])
        ),
        st.sampled_from(named).map(lambda at: replaced(body, at[0], {**at[1], "unknown": 1})),
        st.sampled_from(lists).map(lambda at: replaced(body, at[0], [*at[1], at[1]])),
    )


def cut(text):
    return st.integers(0, len(text) - 1).map(lambda end: text[:end])


def not_finite(text):
    """A number of the body is NaN or infinite; a body without numbers is cut instead."""
    marks = [
        i for i, byte in enumerate(text) if text[i : i + 1].isdigit() and not digit_before(text, i)
    ]
    if not marks:
        return cut(text)
    words = st.sampled_from([b"NaN", b"Infinity", b"-Infinity", b"1e400"])
    return st.tuples(st.sampled_from(marks), words).map(lambda pair: put(text, *pair))


def digit_before(text, i):
    return i > 0 and text[i - 1 : i] in b"0123456789.eE+-_abcdefghijklmnopqrstuvwxyz"


def put(text, start, word):
    end = start
    while end < len(text) and text[end : end + 1] in b"0123456789.eE+-":
        end += 1
    return text[:start] + word + text[end:]
