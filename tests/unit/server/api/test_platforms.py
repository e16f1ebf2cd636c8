"""Platforms by the API."""

import json

import jsonschema

from clouduploader.uploads import registry


def test_platforms_tell_their_fields_and_schema(serve, make_spool):
    found = json.loads(serve(make_spool()).ask("GET", "/api/v1/platforms")[2])["platforms"]
    assert [platform["target"] for platform in found] == registry.names()
    for platform in found:
        jsonschema.Draft202012Validator.check_schema(platform["schema"])
        assert [field["name"] for field in platform["fields"]] == list(platform["schema"]["properties"])
        assert all(field["description"].endswith(".") for field in platform["fields"])
    directory = next(platform for platform in found if platform["target"] == "directory")
    assert directory["accounts"] is None
    assert all(platform["accounts"] for platform in found if any(field["account"] for field in platform["fields"]))
    given = [field["name"] for platform in found for field in platform["fields"] if field["given"]]
    assert given == ["external_id"]
