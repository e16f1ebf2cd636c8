"""The description of the API; e2e/test_api_description.py holds the server against it."""

import json

import openapi_spec_validator
import pytest

from clouduploader.server.api import openapi, table


@pytest.fixture(scope="module")
def description():
    return json.loads(json.dumps(openapi.describe(table.ROUTES)))


def test_description_is_valid(description):
    openapi_spec_validator.validate(description)


def test_description_has_every_route(description):
    described = {
        (path, method) for path, item in description["paths"].items() for method in item if method != "parameters"
    }
    known = {(openapi._path(route.path)[0], method.lower()) for route in table.ROUTES for method in route.methods}
    assert described == known


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(description):
    found = [item[method] for item in description["paths"].values() for method in item if method != "parameters"]
    assert len({operation["operationId"] for operation in found}) == len(found)
    assert all(operation["summary"].endswith(".") for operation in found)


def test_description_is_served(serve, make_spool, description):
    assert json.loads(serve(make_spool()).ask("GET", "/api/v1/openapi.json")[2]) == description
