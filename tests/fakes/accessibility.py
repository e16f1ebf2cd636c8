"""axe-core of npm, which finds what keeps people from using a page."""

import json

from clouduploader.sandbox import installation

PACKAGES = ("axe-core@4.14.1",)


def axe():
    """Its script."""
    place = installation.node_packages("axe", PACKAGES, say=print)
    return (place / "node_modules/axe-core/axe.min.js").read_text("utf-8")


def mistakes(browser, script):
    """What is wrong with the page that a browser shows: of each rule its impact, and where it is broken."""
    browser.call("Runtime.evaluate", expression=script)
    found = json.loads(browser.value("axe.run().then((found) => JSON.stringify(found.violations))"))
    return [(one["impact"], one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
