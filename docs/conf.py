"""How Sphinx builds these pages: sphinx-build -W docs built"""

project = "tfxfer"
author = "the authors of tfxfer"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tfxfer"
exclude_patterns = ["built"]
myst_heading_anchors = 2
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
