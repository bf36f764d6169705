import re
import runpy
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TOP = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
PAGES = [*TOP, *DOCS]
README_LINES = 120  # what a newcomer reads in two minutes


def _name(page):
    return page.relative_to(REPOSITORY).as_posix()


def _anchors(page):
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["privacy.md", "risk.md"])
def test_every_test_that_a_page_names_is_there(page):
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::)?(test_\w+)?`", text)
    named = [(file, test) for file, test in named if file or test]
    assert named
    file = None
    for mentioned, test in named:
        file = mentioned or file  # `::test` belongs to the file named last
        assert (REPOSITORY / file).is_file(), file
        assert not test or f"def {test}(" in (REPOSITORY / file).read_text(), (file, test)


def test_guarantees_name_their_tests():
    text = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert len(re.findall(r"`(?:tests/[\w/]+\.py)?::test_\w+`", text)) > 40


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_local_link_of_a_page_leads_somewhere(page):
    for target, anchor in re.findall(
        r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")
    ):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_name_no_path_of_a_machine(page):
    assert not re.search(r"/(home|root|tmp|work|Users)/", page.read_text(encoding="utf-8"))


def test_the_readme_is_read_in_two_minutes():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_make_target_that_a_page_names_is_there():
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for words in re.findall(r"(?:^|`)make ((?:[a-z][\w-]*(?: |$|`|\n))+)", text, flags=re.M):
            assert set(re.split(r"[ `\n]+", words.strip(" `\n"))) <= set(targets), (page, words)


def test_every_page_is_in_the_navigation_of_the_site():
    generated = runpy.run_path(str(REPOSITORY / "docs" / "hooks.py"))["PAGES"]
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.(?:md|ipynb)", text.split("\nnav:")[1]))
    assert yaml.safe_load(text)["theme"]["font"] is False, "fonts would come from a server"
    folder = REPOSITORY / "docs"
    there = {
        p.relative_to(folder).as_posix() for s in ("md", "ipynb") for p in folder.rglob(f"*.{s}")
    }
    assert named == there | set(generated)
    assert all((REPOSITORY / source).is_file() for source in generated.values())
