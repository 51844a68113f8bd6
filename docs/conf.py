"""Configuration of the documentation site: `make docs` builds it into docs/_build."""

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(HERE))

from site_tools import docstrings, links, reference  # noqa: E402

PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]

project = "keras_vae"
author = "The keras_vae maintainers"
copyright = author
release = PROJECT["version"]
html_title = "keras_vae"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "site_tools"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature is short, and the text says what each argument is
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # what Keras says of its own methods is in its documentation
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

templates_path = ["site_tools/templates"]
html_theme = "furo"
html_static_path = ["site_tools/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # fetches pages, which a browser refuses of local files
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"  # of accessible-pygments, which furo brings
pygments_dark_style = "monokai"


def setup(app):
    """Writes the reference and connects what reads docstrings and links names."""
    reference.write(HERE / "reference")
    app.connect("autodoc-process-docstring", docstrings.process, priority=100)
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("autodoc-skip-member", docstrings.skip)
    app.add_post_transform(links.NamesAreLinks)
