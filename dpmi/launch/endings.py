"""What is known of a job whose process has ended."""

from __future__ import annotations

from dpmi.base.errors import EXIT_INTERRUPTED, EXIT_RESUMABLE, UserError
from dpmi.config.identity import config_digest
from dpmi.config.schema import load_config
from dpmi.launch.jobs import Ending, Job
from dpmi.run.records.entry_file import account_left
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE, RunRecord, record_of_no_run
from dpmi.run.records.writing import write_record


def note_ending(job: Job, ending: Ending) -> RunRecord | None:
    """Return the record of a job, and write that of one which could not: it was killed.

    Such a record states no guarantee, but what the run may have released.

    Returns:
        None where a job left none that was interrupted, or that had nothing to do.
    """
    record = own_record(job)
    if ending.status in (0, EXIT_INTERRUPTED, EXIT_RESUMABLE):
        return record
    if record is not None and record.status == "completed":  # it died of its own tidying up
        return record
    config = load_config(job.config)
    reason = f"{ending.reason}; the same command continues"
    job.folder.mkdir(parents=True, exist_ok=True)
    restarts = record.restarts if record else 0
    died = record_of_no_run(config, "failed", reason, restarts, account_left(job.folder))
    write_record(died, job.folder)
    return died


def own_record(job: Job) -> RunRecord | None:
    """The record that the job's own run left, not one of another config or of an earlier time."""
    try:
        record = read_record(job.folder / RECORD_FILE)
    except UserError:
        return None
    return record if record.config_digest == config_digest(load_config(job.config)) else None
