"""Links names of the reference wherever a page has them, and calls other pages by their titles."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

__all__ = ["NamesAreLinks"]

_FILE = re.compile(r"[\w/-]+\.md")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_PREFIXES = ("", "keras_vae.", "keras_vae.evaluation.", "keras_vae.data.")


class NamesAreLinks(SphinxPostTransform):
    """Makes a link of every literal that is a public name, such as `VAE` or `evaluation.bdmc`."""

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        """Replaces the literals, and the texts of links, of one page."""
        self._use_titles()
        objects = self.env.domains["py"].objects
        for node in list(self.document.findall(nodes.literal)):
            text = node.astext().removesuffix("()")
            if not _NAME.fullmatch(text) or isinstance(node.parent, nodes.reference):
                continue
            if any(isinstance(parent, nodes.title) for parent in _parents(node)):
                continue
            # A lower-case word of one piece, such as `split`, may mean anything.
            prefixes = _PREFIXES if "." in text or text[0].isupper() else _PREFIXES[:2]
            for prefix in prefixes:
                entry = objects.get(prefix + text)
                if entry is None or entry.docname == self.env.docname == "index":
                    continue
                link = make_refnode(
                    self.app.builder,
                    self.env.docname,
                    entry.docname,
                    entry.node_id,
                    node.deepcopy(),
                    prefix + text,
                )
                node.replace_self(link)
                break

    def _use_titles(self) -> None:
        """Replaces the name of a file as the text of a link by the title of the page."""
        here = posixpath.dirname(self.env.docname)
        for link in self.document.findall(nodes.reference):
            target = posixpath.normpath(posixpath.join(here, link.get("refuri", "").split("#")[0]))
            title = self.env.titles.get(target.removesuffix(".html"))
            if _FILE.fullmatch(link.astext()) and title is not None:
                link.clear()
                link += nodes.inline("", title.astext())


def _parents(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found
