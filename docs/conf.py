# SPDX-License-Identifier: Apache-2.0
"""The site: ``make docs`` builds it into build/docs, warnings are errors."""

import sys
from pathlib import Path
from xml.etree import ElementTree

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "extensions")]

project = "meanflow_ik_ros"
author = "The meanflow_ik_ros maintainers"
release = version = ElementTree.parse(DOCS.parent / "package.xml").findtext("version", "")
html_title = f"{project} {version}"

extensions = [
    "interfaces",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["extensions"]
html_theme = "furo"
html_static_path = []
html_copy_source = False

# Links to headings of pages, as on the hosts that show Markdown.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# `name` in a docstring is a name of Python.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
