"""The server and its description, held against each other by the routes; e2e/test_openapi.py asks all there is."""

import json
from pathlib import Path

import openapi_spec_validator
import pytest

from clouduploader.server import operations
from clouduploader.server.obs import routes

DESCRIPTION = Path(operations.__file__).with_name("openapi.json")
METHODS = ("get", "head", "post", "put")


@pytest.fixture(scope="module")
def description():
    return json.loads(DESCRIPTION.read_text("utf-8"))


def test_description_is_valid(description):
    openapi_spec_validator.validate(description)


def test_description_has_every_route_method_and_parameter(description):
    known = {}
    for route in (*routes.ROUTES, *operations.ROUTES):  # those of the page are for browsers
        for method in route.methods:
            names = known.setdefault((route.path.replace("$job", "{job}"), method.lower()), set())
            names.update(parameter.name for parameter in route.parameters)
    described, shared = {}, description["components"]["parameters"]
    for path, item in description["paths"].items():
        for method in item.keys() & set(METHODS):
            references = (*item.get("parameters", ()), *item[method].get("parameters", ()))
            parameters = [shared[reference["$ref"].rpartition("/")[2]] for reference in references]
            described[path, method] = {found["name"] for found in parameters if found["in"] == "query"}
    assert described == known
