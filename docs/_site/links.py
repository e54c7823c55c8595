"""`python docs/_site/links.py SITE`: faults of the built site's links, one a line; exit status 1 if there are any.

A link within the site must lead to a file of it, and to an anchor that is there. A link elsewhere must be a well-formed
http(s) address and is not opened. Scripts, styles, images and fonts must be files of the site: it works offline.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""Tags whose address a browser fetches by itself, with that attribute."""
FETCHING_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "manifest"}
HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?")
STYLE_URL = re.compile(r"""(?:url\(|@import)\s*["']?(https?:|//)""")


class Document(HTMLParser):
    """Links, loaded addresses and anchors of one HTML file."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {"", "__top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, loads or names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and FETCHING_RELATIONS & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])


def read(path: Path) -> Document:
    """The document in an HTML file."""
    document = Document()
    document.feed(path.read_text(encoding="utf-8"))
    return document


def faults(site: Path) -> list[str]:
    """Everything that is wrong with the links of the site in a folder, each with the page where it stands."""
    documents = {path: read(path) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for path, document in documents.items():
        page = path.relative_to(site)
        wrong += [f"{page}: loads {address} from elsewhere" for address in document.loaded if _is_elsewhere(address)]
        for address in (*document.links, *(a for a in document.loaded if not _is_elsewhere(a))):
            reason = _external(address) if urlsplit(address).scheme else _internal(address, path, site, documents)
            if reason:
                wrong.append(f"{page}: {address} {reason}")
    for path in sorted(site.rglob("*.css")):
        if STYLE_URL.search(path.read_text(encoding="utf-8")):
            wrong.append(f"{path.relative_to(site)}: loads something from elsewhere")
    return wrong


def _is_elsewhere(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme in ("http", "https")


def _external(address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme in ("mailto", "data"):
        return None
    if parts.scheme not in ("http", "https"):
        return f"has the unknown scheme {parts.scheme}"
    return None if HOST.fullmatch(parts.netloc) else "has no valid host"


def _internal(address: str, page: Path, site: Path, documents: dict[Path, Document]) -> str | None:
    parts = urlsplit(address)
    # A server shows 404.html at any address: its links begin at the root of the site.
    path = f"{site}{parts.path}" if page == site / "404.html" and parts.path.startswith("/") else parts.path
    target = page if not path else (page.parent / unquote(path)).resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file() or not target.is_relative_to(site):
        return "leads to no file of the site"
    if target in documents and unquote(parts.fragment) not in documents[target].anchors:
        return "leads to no anchor of that page"
    return None


def main(arguments: list[str]) -> int:
    """Print the faults of the site in the folder that is given."""
    (folder,) = arguments
    wrong = faults(Path(folder).resolve())
    sys.stdout.write("".join(f"{line}\n" for line in wrong) or "all links hold\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
