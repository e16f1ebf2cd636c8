"""Decide whether an instance can be reached from the internet, by its VPC."""

from typing import Any

from moto.ec2.models.instances import Instance

SSH_PORT = 22
EVERYWHERE = "0.0.0.0/0"


def accepts_ssh(instance: Instance, address: str) -> bool:
    """Return whether a client on the internet gets a connection to port 22.

    A security group must allow port 22 from any addresses: those of the client are not imitated.
    A public address also needs a route to an internet gateway. A private one is taken as reached
    from inside.
    """
    interface = instance.nics[0]
    rules = [rule for group in interface.group_set for rule in group.ingress_rules]
    if not any(_lets_ssh_in(rule) for rule in rules):
        return False
    return address != interface.public_ip or _has_way_out(instance, interface.subnet)


def _lets_ssh_in(rule: Any) -> bool:  # noqa: ANN401  # moto's class is not typed either
    if not rule.ip_range:
        return False
    if rule.ip_protocol == "-1":
        return True
    return bool(rule.ip_protocol == "tcp" and rule.from_port <= SSH_PORT <= rule.to_port)


def _has_way_out(instance: Instance, subnet: Any) -> bool:  # noqa: ANN401  # as above
    tables = [table for table in instance.ec2_backend.route_tables.values() if table.vpc_id == subnet.vpc_id]
    own = [table for table in tables if subnet.id in table._associations.values()]
    main = [table for table in tables if table.main_association_id]
    gateways = [
        gateway.id
        for gateway in instance.ec2_backend.internet_gateways.values()
        if gateway.vpc and gateway.vpc.id == subnet.vpc_id
    ]
    return any(
        route.destination_cidr_block == EVERYWHERE and route.gateway_id in gateways
        for table in own or main
        for route in table.routes
    )
