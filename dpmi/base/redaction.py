"""Keep secrets of this machine's user out of everything that is printed or recorded."""

from __future__ import annotations

import json
import logging
import netrc
import os
import re
from collections.abc import Iterator
from pathlib import Path

HIDDEN = "***"

_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 12  # shorter values are switches and words that occur by chance
_IN_ADDRESS = re.compile(r"""(?<=://)[^/\s@"'<>]+(?=@)""")  # https://user:token@host


def redacted(text: str) -> str:
    """The text with every known secret, and what stands before @ in addresses, replaced."""
    for _, secret in sorted(_secrets(), key=lambda found: -len(found[1])):
        text = text.replace(secret, HIDDEN)
    return _IN_ADDRESS.sub(HIDDEN, text)


def secret_within(text: str) -> str | None:
    """What secret a text holds, by name; None where it holds none that is known."""
    for name, secret in _secrets():
        if secret in text:
            return name
    return "credentials in an address" if _IN_ADDRESS.search(text) else None


def redact_logs() -> None:
    """Redact whatever the handlers of the root logger write from now on."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, _Redaction) for known in handler.filters):
            handler.addFilter(_Redaction())


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


def _secrets() -> Iterator[tuple[str, str]]:
    """Names and values: of environment variables, of netrc, of Kaggle's files."""
    for name, value in os.environ.items():
        if _NAMES.search(name) and not os.path.exists(value):
            yield from _long_enough(name, value)
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    for host, (_, _, password) in hosts.items():
        yield from _long_enough(f"the password for {host} in netrc", password)
    kaggle = Path(os.environ.get("KAGGLE_CONFIG_DIR", "~/.kaggle")).expanduser()
    for file in (kaggle / "kaggle.json", kaggle / "access_token"):
        try:
            content = file.read_text(encoding="utf-8").strip()
            found = json.loads(content)["key"] if file.suffix == ".json" else content
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield from _long_enough(f"the key in {file.name}", found)


def _long_enough(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and len(value) >= _SHORTEST:
        yield name, value
