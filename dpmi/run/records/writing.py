"""A run's record, and what may be published of it, written side by side."""

from __future__ import annotations

import os
from pathlib import Path

from dpmi.base.redaction import redacted
from dpmi.run.records.kinds import Private, Public
from dpmi.run.records.public import PUBLIC_FILE, publishable
from dpmi.run.records.record import RECORD_FILE, RunRecord


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write ``record.json``, and ``public.json`` beside it, whole or not at all.

    ``record.json`` comes last: where it is, both are.

    Returns:
        The path of ``record.json``.

    Raises:
        OSError: they cannot be written; what was there remains.
    """
    texts: dict[str, Private | Public] = {PUBLIC_FILE: publishable(record), RECORD_FILE: record}
    parts = {name: folder / f"{name}.part" for name in texts}
    try:
        for name, content in texts.items():
            text = redacted(content.model_dump_json(indent=2))
            parts[name].write_text(text, encoding="utf-8")
        for name, part in parts.items():
            os.replace(part, folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return folder / RECORD_FILE
