"""What the tests of the report start from: records that real runs left."""

import pytest
import record_builders


@pytest.fixture(scope="session", autouse=True)
def _builders_have_real_records(real_records):
    for run in (run for sweep in real_records for run in sweep if run.status == "completed"):
        record_builders.REAL.setdefault(run.config["mechanism"]["name"], run)
