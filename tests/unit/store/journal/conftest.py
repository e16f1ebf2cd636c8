import contextlib
import dataclasses

import pytest
from samples.journals import BEGINNING, KEY

from clouduploader.store import journal


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def attempt(state_dir):
    """A factory of a try, to be used with `with`."""

    @contextlib.contextmanager
    def make(data=b"{}", key=KEY, **changes):
        with journal.open_journal(state_dir, key) as opened:
            opened.begin(dataclasses.replace(BEGINNING, **changes), data)
            yield opened

    return make
