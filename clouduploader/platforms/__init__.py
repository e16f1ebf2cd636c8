"""Our own platforms: a module or a package each, which all other code knows by this list alone."""

BUILT_INS = {
    "azure": "clouduploader.platforms.azure:Azure",
    "directory": "clouduploader.platforms.directory:DirectoryPlatform",
    "ec2": "clouduploader.platforms.ec2:Ec2",
    "gce": "clouduploader.platforms.gce:Gce",
    "openstack": "clouduploader.platforms.openstack:OpenStack",
}
"""The entry points by target, the same as in setup.cfg."""
DEFAULT_TARGET = "ec2"
"""What the command line means where it names no target."""
