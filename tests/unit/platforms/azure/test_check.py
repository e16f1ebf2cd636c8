from clouduploader.plugin import Level


def findings(uploader, targetdata=None):
    return list(uploader.platform.check(uploader.context(targetdata)))


def test_cloud_alone_is_looked_at_without_target_data(cloud, make_uploader):
    found = findings(make_uploader(), {})
    assert [(finding.level, finding.message) for finding in found] == [(Level.OK, "answers")]
    assert "Token" not in cloud.actions()


def test_rights_of_the_method_are_looked_at(cloud, make_uploader):
    cloud.allow(set())
    assert {finding.level for finding in findings(make_uploader())} == {Level.OK}


def test_what_lacks_for_a_blob_is_named(cloud, make_uploader):
    cloud.allow(set())
    found = findings(make_uploader(is_by_blob=True))
    assert found[-1].level is Level.FAILURE
    assert "blobs/write" in found[-1].message


def test_group_that_is_not_there_is_a_failure(make_uploader):
    found = findings(make_uploader(resource_group="elsewhere"))
    assert found[-1].level is Level.FAILURE
    assert "ResourceGroupNotFound" in found[-1].message


def test_cloud_that_does_not_answer_is_a_failure(make_uploader):
    address = "https://127.0.0.1:1"
    (finding,) = findings(make_uploader(settings={"cloud": address}))
    assert (finding.level, finding.subject) == (Level.FAILURE, f"cloud {address}")
