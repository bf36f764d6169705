"""A card as three files with the same content, each of which can be read back and compared."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from pydantic import ValidationError

from dpmi.base.errors import UserError
from dpmi.cards import curve
from dpmi.cards.schema import FILES, SCHEMA, VERSION, Card
from dpmi.cards.sections import CANNOT, beneath, headline, sections

SOURCES = (
    "Contents after the pyramid of NIST SP 800-226 (Near et al. 2025) and model cards (Mitchell et "
    "al. 2019, arXiv 1810.03993)."
)
_EMBEDDED = {
    ".html": re.compile(r'<script type="application/json" id="card">\n(.*?)</script>', re.DOTALL),
    ".md": re.compile(r"<!-- dpmi card\n(.*?)-->", re.DOTALL),
    ".json": re.compile(r"(.*)", re.DOTALL),
}


def rendered(card: Card, suffix: str) -> bytes:
    """The file of a card that ends so: ".html", ".md" or ".json"."""
    if suffix == ".json":
        return card.as_json().encode()
    text = _template(suffix).render(
        card=card,
        headline=headline(card),
        beneath=beneath(card),
        sections=sections(card),
        panels=curve.panels(card.record.risk),
        side=curve.SIDE,
        top=curve.TOP,
        cannot=CANNOT,
        sources=SOURCES,
        embedded=Markup(_embedded(card)),
        style=Markup(files("dpmi.cards").joinpath("templates", "card.css").read_text("utf-8")),
    )
    return text.encode()


def _embedded(card: Card) -> str:
    """JSON that neither ends a script nor a comment, and starts no markup."""
    text = card.as_json()
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.replace("--", "-\\u002d")


@cache
def _template(suffix: str) -> Template:
    environment = Environment(
        loader=PackageLoader("dpmi.cards", "templates"),
        autoescape=suffix == ".html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "breaking": _breaking}
    return environment.get_template(f"card{suffix}.j2")


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def _breaking(text: str) -> Markup:
    """Text for HTML whose names, as long as test_images/accuracy, end a line at a slash."""
    return Markup(str(escape(text)).replace("/", "/<wbr>"))


def write(card: Card, out: Path) -> None:
    """Write all three files, each whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        path = out / name
        part = path.with_suffix(f"{path.suffix}.part")
        try:
            part.write_bytes(rendered(card, path.suffix))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def read_card(path: Path) -> tuple[Card, bytes]:
    """The card that a file holds, and the file's bytes.

    Raises:
        UserError: no file, no card in it, or one of another version.
    """
    if path.suffix not in _EMBEDDED:
        raise UserError(f"{path}: no card; give {' or '.join(FILES.values())}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        found = _EMBEDDED[path.suffix].search(content.decode())
        values = json.loads(found[1]) if found else None
    except ValueError as error:
        raise UserError(f"{path}: contains no readable card ({error})") from error
    stated = (
        (values.get("schema_name"), values.get("version")) if isinstance(values, dict) else None
    )
    if stated != (SCHEMA, VERSION):
        raise UserError(
            f"{path}: schema and version are {stated}; this dpmi reads {SCHEMA} version {VERSION}: "
            "use the dpmi that made it, or make it again (python -m dpmi.card RUN)"
        )
    try:
        return Card.model_validate(values), content
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from error
