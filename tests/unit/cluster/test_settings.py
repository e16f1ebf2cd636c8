"""Section [cluster]: what it takes, and what it refuses in one line."""

import pytest

from clouduploader.cluster import settings
from clouduploader.errors import ConfigError
from clouduploader.store import config


@pytest.fixture
def read(tmp_path):
    def call(text="", *, environment=None, **options):
        tmp_path.joinpath("clouduploader.conf").write_text(f"[cluster]\n{text}\n")
        found = config.load(home=tmp_path, spool=tmp_path / "spool", environment=environment or {})
        return settings.read(found, **options)

    return call


def test_first_rule_that_fits_names_the_queue(read):
    found = read("queues =\n  big size>=20G\n  europe target=ec2 region=eu-*\n  small size<1M")
    for target, region, size, queue in (
        ("ec2", "eu-west-1", 20 << 30, "big"),
        ("ec2", "eu-west-1", 5 << 30, "europe"),
        ("azure", "eu-west-1", 5 << 30, "uploads"),
        ("azure", "", 1000, "small"),
    ):
        assert found.queue_of(target=target, region=region, size_bytes=size) == queue


def test_host_that_names_no_queue_serves_the_default_one(read):
    assert read("serves =").serves == read().serves == (settings.DEFAULT_QUEUE,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_store = bucket", "not s3://BUCKET/PREFIX"),
        ("image_store = s3://B", "not s3://BUCKET/PREFIX"),
        ("image_store = s3://images/a b", "not s3://BUCKET/PREFIX"),
        ("image_store = s3://images\nimage_store_endpoint = http://192.0.2.1", "not the URL of a store by https"),
        ("image_store = s3://images\nimage_store_endpoint = https://u:p@store", "not the URL of a store by https"),
        ("image_store = s3://images\nimage_store_endpoint = https://[", "not the URL of a store by https"),
        ("colour = red", "unknown setting 'colour'"),
        ("slots = 0", "slots in [cluster] is '0'"),
        ("queues = big size=3", "'size=3' in queues"),
        ("queues = big size>=x", "not a size"),
        ("queues = -big", "is no name"),
        ("priorities = tom:10", "is not USER:NUMBER"),
        ("lease_seconds = 10", "three times beat_seconds"),
        ("broker = amqp://tom:secret@mq", "has a password in it"),
        ("broker = redis://mq", "Redis can't be the broker"),
        ("broker = http://mq", "is not the URL of RabbitMQ"),
        ("broker = amqp://mq:x", "is not the URL of RabbitMQ"),
        ("broker = amqps://tom:secret@mq:99999/v", "has a password in it"),
        ("broker = amqps://tom:se/secret@mq/v", "is not the URL of RabbitMQ"),
        ("broker = amqps://tom:#secret@mq/v", "is not the URL of RabbitMQ"),
        ("broker = tom:secret@mq", "is not the URL of RabbitMQ"),
        ("broker = amqps://tom@mq/v?password=secret", "is not the URL of RabbitMQ"),
        ("broker = amqps://tom@mq/v?ssl_cert_reqs=CERT_NONE", "is not the URL of RabbitMQ"),
        ("broker = amqps://mq;amqps://tom:secret@other", "is not the URL of RabbitMQ"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(read, text, message):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in caught.value.message
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("url", ["amqps://t%40m@mq.example.org:5671/%2Fv", "amqp://[::1]:5672", "amqps://mq/"])
def test_broker_has_a_user_a_port_and_a_virtual_host(read, url):
    assert read(f"broker = {url}").broker == url


def test_broker_elsewhere_is_reached_in_clear_without_tls(read):
    found = {url: read(f"broker = {url}").is_in_clear for url in ("amqp://mq", "amqps://mq", "amqp://[::1]", "")}
    assert found == {"amqp://mq": True, "amqps://mq": False, "amqp://[::1]": False, "": False}


def test_command_line_wins(read):
    found = read("slots = 3\nserver = https://a/", server="https://b/", slots=4, serves=("big",), broker="amqp://mq")
    assert (found.slots, found.server, found.serves, found.broker) == (4, "https://b", ("big",), "amqp://mq")


def test_password_is_in_the_environment_a_credential_or_a_file(tmp_path):
    def password(environment):
        return settings.password(config.load(home=tmp_path, spool=tmp_path, environment=environment))

    assert password({}) is None
    tmp_path.joinpath("broker-password").write_text("from file\n")
    assert password({}) == "from file"
    handed = {"CREDENTIALS_DIRECTORY": str(tmp_path / "handed")}
    assert password(handed) == "from file"
    tmp_path.joinpath("handed").mkdir()
    tmp_path.joinpath("handed/broker-password").write_text("handed over")
    assert password(handed) == "handed over"
    assert password(handed | {"CLOUDUPLOADER_BROKER_PASSWORD": "other"}) == "other"


def test_image_store_has_its_place_and_keys(read):
    assert read("image_store = s3://images").image_store == settings.StorePlace(
        bucket="images", prefix="", endpoint="", profile="default"
    )
    found = read("image_store = s3://images/a/b/\nimage_store_endpoint = https://store/\nimage_store_profile = s3")
    assert found.image_store == settings.StorePlace(
        bucket="images", prefix="a/b/", endpoint="https://store", profile="s3"
    )
    assert read("image_store =").image_store is None
