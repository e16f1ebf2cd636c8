import pytest

from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.ami import find


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({labels.CONTENT: "1"}, {labels.CONTENT: "1"}, True),
        ({labels.CONTENT: "1", labels.KEY: "a"}, {labels.CONTENT: "2", labels.KEY: "a"}, False),
        ({labels.SHA256: "1", labels.CONTENT: "1"}, {labels.SHA256: "1", labels.KEY: "a"}, True),
        ({labels.SHA256: "2", labels.KEY: "a"}, {labels.SHA256: "1", labels.KEY: "a"}, False),
        ({labels.KEY: "a"}, {labels.KEY: "a", labels.SHA256: "1"}, True),
        ({}, {labels.KEY: "a"}, False),
        ({}, {}, False),
    ],
)
def test_images_are_the_same_by_content_first(found, wanted, expected):
    assert find.is_same(found, wanted) is expected
