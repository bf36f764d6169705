"""Records read back: of one run, or of all below a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dpmi.base.errors import UserError
from dpmi.config.schema import Config
from dpmi.run.records.public import PUBLIC_FILE, PUBLIC_SCHEMA, PUBLIC_VERSION, PublicRecord
from dpmi.run.records.record import RECORD_FILE, SCHEMA, SUPERSEDED, VERSION, RunRecord


def read_record(path: Path) -> RunRecord:
    """Read one private record.

    Raises:
        UserError: not JSON, not a run record, or of another version.
    """
    return _read(path, RunRecord, SCHEMA, VERSION)


def config_of(record: RunRecord, path: Path) -> Config:
    """The config of a run that is to be made again.

    Raises:
        UserError: it is of another version's.
    """
    try:
        return Config.model_validate(record.config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: its config was written by another version of dpmi ({key}: {first['msg']}); "
            "run it again, or use the version that it was run with"
        ) from error


def read_public_record(path: Path) -> PublicRecord:
    """Read one public record.

    Raises:
        UserError: not JSON, not a public record, or of another version.
    """
    return _read(path, PublicRecord, PUBLIC_SCHEMA, PUBLIC_VERSION)


Kind = TypeVar("Kind", RunRecord, PublicRecord)


def _read(path: Path, kind: type[Kind], schema: str, version: int) -> Kind:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable run record ({error})") from error
    found = (
        (content.get("schema_name"), content.get("version")) if isinstance(content, dict) else ()
    )
    if found != (schema, version):
        raise UserError(
            f"{path}: schema and version are {found}; this dpmi reads {schema} version {version}"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from error


def read_records(folder: Path) -> list[RunRecord]:
    """Every record below a folder, of a job, a sweep or several, by name of the job's folder.

    Those that a new run of the same cell superseded are left out.
    """
    return [read_record(path) for path in files_below(folder, RECORD_FILE)]


def read_public_records(folder: Path) -> list[PublicRecord]:
    """The same of public records."""
    return [read_public_record(path) for path in files_below(folder, PUBLIC_FILE)]


def files_below(folder: Path, name: str) -> list[Path]:
    """Files of that name below a folder, without those of superseded attempts."""
    return [p for p in sorted(folder.rglob(name)) if SUPERSEDED not in p.relative_to(folder).parts]
