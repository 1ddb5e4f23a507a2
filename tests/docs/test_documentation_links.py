"""Fails when a link of a page leads nowhere, a page is in no index, or the architecture leaves a module out."""

import re
from functools import cache

import pytest

from stack.engines import ROOT

OURS = "https://github.com/mempressure/mempressure/blob/main/"
RAW = "https://raw.githubusercontent.com/mempressure/mempressure/main/"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
INDEX = DOCS / "README.md"


def links(text):
    """Return the targets of links and pictures, without those in code."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose)


@cache
def anchors(path):
    """Return the anchors that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    names, seen = set(), {}
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = seen[name] = seen.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def fault(page, target):
    """Return what is wrong with a link; nothing where it leads somewhere, or to somebody else's site."""
    for prefix in (OURS, RAW):
        if target.startswith(prefix):
            page, target = ROOT / "README.md", target.removeprefix(prefix)
    if re.match(r"[a-z]+:", target):
        return ""
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists():
        return f"{target}: there is no {path}"
    if anchor and anchor not in anchors(found):
        return f"{target}: {found.name} has no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    targets = ["".join(pair) for pair in links(page.read_text())]
    assert [told for told in (fault(page, target) for target in targets) if told] == []


def test_links_of_the_readme_hold_beyond_the_repository():
    targets = ["".join(pair) for pair in links((ROOT / "README.md").read_text())]
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_the_index_lists_every_page():
    listed = {(DOCS / target.partition("#")[0]).resolve() for target, _ in links(INDEX.read_text())}
    assert {path for path in DOCS.glob("*.md") if path != INDEX} - listed == set()


def test_a_link_astray_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `word`, and more\n\n[here](#a-word-and-more) `[not](this)`\n\n## A word\n\n## A word\n")
    assert [fault(page, target) for target, _ in links(page.read_text())] == [""]
    assert anchors(page) == {"a-word-and-more", "a-word", "a-word-1"}
    assert fault(page, "gone.md") == "gone.md: there is no gone.md"
    assert fault(page, "#gone") == "#gone: page.md has no such heading"
    assert fault(page, f"{OURS}docs/gone.md") == "docs/gone.md: there is no docs/gone.md"
    assert not fault(page, f"{OURS}docs/concepts.md#strategies")
    assert not fault(page, "https://example.org/gone.md")
