"""The directive `from-program`: content of the reference that is made from the program when the pages are built."""

from collections.abc import Callable, Iterable

import commands
import http_api
import json_api
import plugin_api
import tables
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

SOURCES: dict[str, Callable[..., Iterable[str]]] = {
    "access": tables.access,
    "accounts": tables.accounts,
    "api-documents": json_api.documents,
    "api-refusals": json_api.refusals,
    "api-routes": json_api.routes,
    "azure-rights": tables.azure_rights,
    "command": commands.command,
    "program": commands.program,
    "documents": http_api.documents,
    "routes": http_api.routes,
    "environment": tables.environment,
    "exit-codes": tables.exit_codes,
    "files": tables.files,
    "gce-role": tables.gce_role,
    "metrics": tables.metrics,
    "openstack-rules": tables.openstack_rules,
    "package": plugin_api.package,
    "policy": tables.policy,
    "service-policy": tables.service_policy,
    "settings": tables.settings,
    "target-data": tables.target_data,
    "trust": tables.trust,
}
"""What makes the lines of each content; it takes the further words of the directive."""


class FromProgram(SphinxDirective):
    """Content that the program knows, as in `.. from-program:: command upload`."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the content; an unknown one ends the build."""
        name, *words = self.arguments
        lines = SOURCES[name](*words)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Add the directive, and what the docstrings of the plugin API need; called by Sphinx."""
    app.add_directive("from-program", FromProgram)
    app.connect("autodoc-process-docstring", plugin_api.show_indented_code)
    app.connect("autodoc-process-signature", plugin_api.shorten_signature)
    app.connect("missing-reference", plugin_api.resolve_name)
    return {"parallel_read_safe": True}
