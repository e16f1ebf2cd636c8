"""What a platform's accounts are without a word of their own."""

from clouduploader.plugin import AccountGuide, Accounts, Verification


class Plain(Accounts):
    """Accounts of a cloud that makes up nothing, and offers no permissions and scripts."""

    def guide(self, values, *, extras, reporter):
        return AccountGuide(facts={"server": "here"}, policies={}, scripts={})

    def verify(self, values, *, reporter):
        return Verification((), is_usable=True, is_open=False)


def test_accounts_with_guide_and_verify_alone_offer_nothing_else():
    kept = Plain()
    assert (kept.description, kept.extras, kept.scripts, kept.new_values()) == ("", {}, {}, {})
