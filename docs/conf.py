"""How Sphinx builds the documentation; `bin/docs` runs it, and takes warnings for errors."""

import sys
from pathlib import Path

import clouduploader

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "clouduploader"
author = "The clouduploader developers"
version = release = clouduploader.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_program", "links"]
exclude_patterns = ["_build"]
default_role = "literal"  # `code` in docstrings
smartquotes_action = "D"  # quotes stay what they are where they are typed

html_theme = "furo"
html_title = f"clouduploader {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_copyright = False

napoleon_attr_annotations = False  # the signature has them
napoleon_use_ivar = True
nitpicky = True
nitpick_ignore_regex = [("py:class", r".*\.(T|ChunkT|Arrival)")]  # type variables, and what no platform calls
