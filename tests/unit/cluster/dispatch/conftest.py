import pytest
from fakes import cluster_site


@pytest.fixture
def site(make_spool, make_job, tmp_path, install_package, monkeypatch):
    """The server's side of a cluster; see `cluster_site.Site`."""
    cluster_site.install_platform(install_package, monkeypatch)
    home = tmp_path / "home"
    home.mkdir()
    made = cluster_site.Site(make_spool(), home, make_job)
    yield made
    made.leases.close()
