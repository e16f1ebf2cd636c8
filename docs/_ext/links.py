"""Links to other sites: only their form is checked, for the pages are built without a network."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

FORM = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/\S*)?|mailto:\S+@\S+")
logger = logging.getLogger(__name__)


def check(_app: Sphinx, doctree: nodes.document) -> None:
    """Warn of each link that is neither to a page of ours nor well formed."""
    for link in doctree.findall(nodes.reference):
        if "refuri" in link and not FORM.fullmatch(link["refuri"]):
            logger.warning("not a link to another site: %s", link["refuri"], location=link)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Check each page when it has been read; called by Sphinx."""
    app.connect("doctree-read", check)
    return {"parallel_read_safe": True}
