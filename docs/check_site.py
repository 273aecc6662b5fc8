#!/usr/bin/env python3
"""Checks that every relative link of the site, with its fragment, leads somewhere. usage: check_site.py FOLDER"""
import pathlib, sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

# The page of a site that does not know its address; and the changelog, which names pages that existed when it was written.
SKIPPED = ("404.html", "CHANGELOG.html")
root = pathlib.Path(sys.argv[1]).resolve()


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]


pages = {path: Page(path) for path in root.rglob("*.html") if path.name not in SKIPPED}
broken, count = [], 0
for path, page in pages.items():
    for link in page.links:
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        known = pages.get(target)
        count += 1
        if not target.is_file() or (url.fragment and known and unquote(url.fragment) not in known.ids):
            broken.append(f"{path.relative_to(root)}: {link}")
print(f"{len(pages)} pages, {count} links, {len(broken)} broken", *broken, sep="\n  ")
sys.exit(bool(broken) or len(pages) < 50)
