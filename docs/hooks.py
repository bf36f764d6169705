"""What mkdocs needs beyond its own: pages that lie at the top of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

# The page of the site, and the file it is made from.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
ATTACHED = ("CITATION.cff",)  # linked from a page, and served as they are


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with links that are right for the site."""
    from mkdocs.structure.files import File  # here: a test reads PAGES without mkdocs

    top = Path(config.config_file_path).parent
    for page, source in PAGES.items():
        text = for_site((top / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for name in ATTACHED:
        files.append(File.generated(config, name, abs_src_path=str(top / name)))
    return files


def for_site(text: str) -> str:
    """Rewrite a page's links: those into docs/ lose that folder, those to other pages their name.

    Args:
        text: Markdown of a file at the top of the repository.
    """
    for page, source in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return re.sub(r"\]\(docs/", "](", text)
