"""How Sphinx builds the documentation; `bin/docs` runs it, and takes warnings for errors."""

import sys
from pathlib import Path

import clouduploader

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "clouduploader"
author = "The clouduploader developers"
version = release = clouduploader.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"clouduploader {version}"
html_copy_source = False
html_show_copyright = False

nitpicky = True
