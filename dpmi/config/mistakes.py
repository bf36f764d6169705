"""What is wrong with a config, in one line that says what to do."""

from __future__ import annotations

import re
import shlex
from difflib import get_close_matches

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from dpmi.base.errors import cause_for_user
from dpmi.config.schema import schema_keys


def explain(error: Exception) -> str:
    """One line of what went wrong in composing or checking a config."""
    error = cause_for_user(error) or error
    line = " ".join(str(error).split()) or " ".join(str(error.__cause__).split())
    if match := re.match(r"Could not override '([^']+)'", line):
        return _unknown_key(match[1])
    if match := re.search(
        r"Could not find '([\w/]+)/(\w+)' Available options in '[\w/]+': ([\w ]+)", line
    ):
        group, option, others = match.groups()
        allowed = ", ".join(others.removesuffix(" Config search path").split())
        return f"{group}={option}: no such option; allowed are {allowed}"
    # Hydra appends where in its own structures the key was missing, which tells a user nothing.
    for tail in (" full_key:", " See https:"):
        line = line.split(tail)[0]
    if match := re.match(r"Ambiguous value for argument '(.+)' 1\. To use it as a list", line):
        hint = "; if the comma is a part of one value, write " + (
            _quoted(match[1]) or "it in quotes"
        )
        return f"{match[1]}: several values are a sweep, which needs -m{hint}"
    if isinstance(error, OverrideParseException):
        if quoted := _quoted(error.override):
            return (
                f"{error.override}: Hydra reads this value only in quotes of its own, inside those "
                f"of the shell; write {quoted}"
            )
        return f"{error.override}: not KEY=VALUE as Hydra reads it ({line})"
    return line


def _quoted(override: str) -> str | None:
    """An override with its value as one text, for a shell; None where it is not meant as one."""
    key, _, value = override.partition("=")
    # Lists and texts, and what Hydra knows as functions of a sweep: interval(1,2).
    if not value or value[0] in "[{'\"" or re.match(r"\w+\(", value):
        return None
    escaped = re.sub(r"(\\+)$", r"\1\1", value.replace('"', '\\"'))
    quoted = f'{key}="{escaped}"'
    try:
        (parsed,) = OverridesParser.create().parse_overrides([quoted])
    except HydraException:  # the key is at fault
        return None
    return shlex.quote(quoted) if parsed.value() == value else None


def _unknown_key(key: str) -> str:
    for kind in ("launcher", "sweeper"):
        if key.startswith(f"hydra.{kind}."):
            return f"{key}: no such key of this {kind}; choose another with hydra/{kind}=OPTION"
    near = get_close_matches(key, schema_keys(), n=1)
    if near == [key]:
        hint = f"another option of {key.split('.')[0]} has it; "
    else:
        hint = f"did you mean {near[0]}? " if near else ""
    return f"{key}: no such key in this config; {hint}--help explains each key"
