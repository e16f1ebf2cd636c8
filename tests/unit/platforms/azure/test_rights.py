import pytest

from clouduploader.platforms.azure import rights


def given(*actions, data=(), but=()):
    return [{"actions": list(actions), "notActions": list(but), "dataActions": list(data), "notDataActions": []}]


def test_role_of_the_guide_lacks_nothing_and_is_not_too_wide():
    role = rights.definition("n", "d", rights.EXTRAS, "/scope")
    had = [{"actions": role["Actions"], "dataActions": role["DataActions"]}]
    assert rights.missing(rights.chosen(rights.EXTRAS), had) == []
    assert rights.too_much(had) == []


def test_contributor_lacks_data_actions_and_is_too_wide():
    had = given("*", but=["Microsoft.Authorization/*/Write"])
    assert rights.missing(rights.chosen(["blob"]), had) == list(rights.EXTRAS["blob"].data_actions)
    found = rights.too_much(had)
    assert "Microsoft.Compute/virtualMachines/write" in found
    assert "Microsoft.Authorization/roleAssignments/write" not in found


@pytest.mark.parametrize("extra", rights.EXTRAS)
def test_extras_are_not_in_the_base(extra):
    assert rights.missing(rights.EXTRAS[extra], given(*rights.BASE.actions)) != []


def test_two_roles_add_up():
    had = given("Microsoft.Compute/*") + given("microsoft.resources/*/READ")
    assert rights.missing(rights.BASE, had) == []
