"""Which connections get through to an instance."""

import pytest
from moto.ec2.models import EC2Backend

from clouduploader.sandbox.aws import network

SSH = {"ip_protocol": "tcp", "from_port": "22", "to_port": "22", "ip_ranges": [{"CidrIp": "0.0.0.0/0"}]}


@pytest.fixture
def make_instance():
    """A factory of instances: what its group lets in, and whether its VPC has a way out."""

    def make(*, rule=SSH, has_gateway=True, has_route=True):
        ec2 = EC2Backend("us-east-1", "123456789012")
        vpc = ec2.create_vpc("10.0.0.0/16")
        subnet = ec2.create_subnet(vpc.id, "10.0.1.0/24", availability_zone="us-east-1a")
        group = ec2.create_security_group("g", "d", vpc.id)
        if rule:
            ec2.authorize_security_group_ingress(group_name_or_id=group.id, **rule)
        gateway = ec2.create_internet_gateway()
        ec2.attach_internet_gateway(gateway.id, vpc.id)
        if has_route:
            table = ec2.create_route_table(vpc.id)
            ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
            ec2.associate_route_table(table.id, subnet_id=subnet.id)
        if not has_gateway:
            ec2.detach_internet_gateway(gateway.id, vpc.id)
        nic = {
            "DeviceIndex": 0,
            "SubnetId": subnet.id,
            "AssociatePublicIpAddress": True,
            "Groups": [group.id],
        }
        reservation = ec2.run_instances(
            "ami-0123456789abcdef0", 1, None, [], instance_type="t2.micro", is_instance_type_default=False, nics=[nic]
        )
        return reservation.instances[0]

    return make


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        (SSH, True),
        (SSH | {"from_port": "20", "to_port": "30"}, True),
        (SSH | {"ip_protocol": "-1"}, True),
        (SSH | {"from_port": "80", "to_port": "443"}, False),
        (SSH | {"ip_protocol": "udp"}, False),
        (None, False),
    ],
)
def test_ssh_needs_a_group_that_lets_it_in(make_instance, rule, is_open):
    instance = make_instance(rule=rule)
    assert network.accepts_ssh(instance, instance.public_ip) is is_open


@pytest.mark.parametrize("missing", ["has_gateway", "has_route"])
def test_public_address_needs_a_route_to_a_gateway(make_instance, missing):
    instance = make_instance(**{missing: False})
    assert network.accepts_ssh(instance, instance.public_ip) is False
    assert network.accepts_ssh(instance, instance.private_ip) is True
