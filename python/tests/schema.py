"""As much of JSON Schema as the schemas of jobs and events use. A keyword that is not known here is an error."""

import re

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
#: What says nothing about validity, or nothing that is checked here.
IGNORED = {"$schema", "$defs", "title", "description", "default", "format"}


class Misfit(AssertionError):
    """A value does not fit its schema."""


def check(value, schema, root=None):
    """Raises ``Misfit`` if ``value`` does not fit."""
    root = schema if root is None else root
    if schema is True:
        return
    for keyword, rule in schema.items():
        if keyword in IGNORED:
            continue
        if not KEYWORDS[keyword](value, rule, schema, root):
            raise Misfit(f"{value!r} does not fit {keyword}: {rule!r}")


def fits(value, schema, root):
    try:
        check(value, schema, root)
    except Misfit:
        return False
    return True


def is_type(value, name):
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def has_type(value, rule, schema, root):
    return any(is_type(value, name) for name in ([rule] if isinstance(rule, str) else rule))


def reference(value, rule, schema, root):
    part = root
    for step in rule.removeprefix("#/").split("/"):
        part = part[step]
    check(value, part, root)
    return True


def properties(value, rule, schema, root):
    if isinstance(value, dict):
        for key in value.keys() & rule.keys():
            check(value[key], rule[key], root)
    return True


def additional(value, rule, schema, root):
    others = [key for key in value if key not in schema.get("properties", {})] if isinstance(value, dict) else []
    if rule is False:
        return not others
    for key in others:
        check(value[key], rule, root)
    return True


def items(value, rule, schema, root):
    for item in value if isinstance(value, list) else []:
        check(item, rule, root)
    return True


KEYWORDS = {
    "type": has_type,
    "$ref": reference,
    "properties": properties,
    "additionalProperties": additional,
    "items": items,
    "required": lambda value, rule, *_: not isinstance(value, dict) or set(rule) <= value.keys(),
    "pattern": lambda value, rule, *_: not isinstance(value, str) or re.search(rule, value) is not None,
    "const": lambda value, rule, *_: value == rule,
    "enum": lambda value, rule, *_: value in rule,
    "minimum": lambda value, rule, *_: isinstance(value, dict) or value is None or value >= rule,
    "maximum": lambda value, rule, *_: value is None or value <= rule,
    "oneOf": lambda value, rule, _, root: sum(fits(value, option, root) for option in rule) == 1,
    "anyOf": lambda value, rule, _, root: any(fits(value, option, root) for option in rule),
    "allOf": lambda value, rule, _, root: all(fits(value, option, root) for option in rule),
}
