import json

import jsonschema

from clouduploader.platforms import BUILT_INS


def test_platforms_are_listed_with_their_package(run_in_home):
    code, out, _ = run_in_home("platforms")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["TARGET", "PACKAGE", "STATE", "DESCRIPTION"]
    assert [(line[0], line[2]) for line in lines[1:]] == [(target, "ok") for target in sorted(BUILT_INS)]
    rows = json.loads(run_in_home("platforms", "--json")[1])["data"]["platforms"]
    assert [set(row) for row in rows] == [{"target", "package", "problem", "description"}] * len(BUILT_INS)
    assert [row["description"] for row in rows] == [line[3] for line in lines[1:]]
    assert [row["problem"] for row in rows] == [None] * len(BUILT_INS)


def test_broken_platform_is_listed_with_its_problem(run_in_home, install_package):
    install_package("cloud_of_x", x="cloud_of_x:create", ec2="y:z")
    code, out, _ = run_in_home("platforms", "--json")
    rows = json.loads(out)["data"]["platforms"]
    assert code == 0
    assert [row["target"] for row in rows] == sorted([*BUILT_INS, "ec2", "x"])
    assert [row["target"] for row in rows if row["problem"]] == ["ec2", "ec2", "x"]
    assert "more than one platform" in next(row["problem"] for row in rows if row["target"] == "ec2")
    assert "ModuleNotFoundError" in rows[-1]["problem"]
    assert rows[-1]["description"] is None
    assert run_in_home("platforms")[0] == 0


def test_schema_is_printed(run_in_home):
    code, out, _ = run_in_home("platforms", "--schema", "ec2")
    schema = json.loads(out)
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {"region", "ami_name", "arn", "tags"} <= set(schema["properties"])
    assert json.loads(run_in_home("platforms", "--json", "--schema", "ec2")[1])["data"] == {"schema": schema}


def test_schema_of_an_unknown_platform_is_refused(run_in_home):
    code, out, err = run_in_home("platforms", "--schema", "nowhere")
    assert (code, out) == (69, "")
    assert f"there are: {', '.join(sorted(BUILT_INS))}" in err
