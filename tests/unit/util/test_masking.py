from clouduploader.util import masking


def test_longer_secret_is_masked_before_one_that_is_part_of_it():
    assert masking.without("x abcdef y abc", ["abc", "abcdef"]) == "x ******** y ********"


def test_secret_is_masked_as_python_shows_it_too():
    for secret in ('it\'s "so" \\ odd\n', "it's"):
        assert masking.without(repr(f"'{secret}\""), [secret]) == repr("'********\"")


def test_secret_that_was_read_is_masked_from_then_on():
    assert masking.masked("open-sesame-1001") == "open-sesame-1001"
    masking.hide("")
    masking.hide("open-sesame-1001")
    assert masking.masked("by open-sesame-1001!") == "by ********!"
