"""The documentation site builds without warnings, and its pages are good ones in a browser."""

import html.parser
import json
import posixpath
import re
import subprocess
import urllib.parse
from pathlib import Path

import preloaded
import pytest
from chromium import ALL_VIEWS, VIEWS, browser

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = ("-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q")
    folders = ("-d", folder / "doctrees", DOCS, folder / "html")
    done = subprocess.run(
        [*preloaded.python(), *words, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr  # a warning is an error
    return folder / "html"


class Page(html.parser.HTMLParser):
    """Anchors of a page, and what it links to on the site."""

    def __init__(self, path, site):
        super().__init__()
        self.path, self.anchors, self.links = path, set(), set()
        self.feed((site / path).read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.anchors.add(values["id"])
        link = urllib.parse.urlsplit(values.get("href") or "")
        if tag == "a" and not link.scheme and not link.netloc:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), link.path))
            self.links.add((path if link.path else self.path, link.fragment))


def test_questions_of_public_threads_are_answered_within_two_clicks(site):
    asked = (DOCS / "faq.md").read_text().partition("## Where these were asked")[2]
    answers = set()
    for link in re.findall(r"^\| .*\]\(https://.* \| \[[^\]]*\]\((.*?)\)", asked, re.M):
        page, _, anchor = link.partition("#")
        answers.add(((page or "faq.md").removesuffix(".md") + ".html", anchor))
    assert len(answers) >= 10
    pages = {path: Page(path, site) for path in {"index.html", *(path for path, _ in answers)}}
    first = pages["index.html"].links
    near = [pages[path].links for path, _ in first if path in pages]
    for path, anchor in answers:
        assert not anchor or anchor in pages[path].anchors
        found = (path, anchor) in first or any((path, anchor) in links for links in near)
        assert found, f"{path}#{anchor} is more than two clicks away from the front page"


def test_pages_are_good_ones_in_a_browser(site):
    faults = {}
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    with browser() as tab:
        for page in pages:
            tab.open((site / page).as_uri())
            views = ALL_VIEWS if page == "index.html" else VIEWS
            if found := tab.faults(views):
                faults[page] = found
    assert not faults, json.dumps(faults, indent=1)
    assert len(pages) > 60
