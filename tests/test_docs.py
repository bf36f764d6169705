import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])


def test_every_test_that_a_promise_names_is_there():
    text = (REPOSITORY / "docs" / "privacy.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::)?(test_\w+)?`", text)
    named = [(file, test) for file, test in named if file or test]
    assert len(named) > 15
    file = None
    for mentioned, test in named:
        file = mentioned or file  # `::test` belongs to the file named last
        assert (REPOSITORY / file).is_file(), file
        assert not test or f"def {test}(" in (REPOSITORY / file).read_text(), (file, test)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_local_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_path_of_a_machine(page):
    assert not re.search(r"/(home|root|tmp|work|Users)/", page.read_text())
