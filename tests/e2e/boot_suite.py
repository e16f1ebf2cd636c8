"""An image that a cloud has comes up in QEMU by the firmware that the cloud has for it; run by `packaging/boot`."""

import subprocess

import pytest
from samples import bootable

UEFI = "/usr/share/OVMF/OVMF_CODE.fd"
BOOT_SECONDS = 120  # without KVM it takes ten on a quiet machine


def boot(disk, firmware):
    """Start a machine from a disk, and return what it says on its serial line until it is off."""
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "512", "-nic", "none", "-no-reboot"]
    argv += ["-display", "none", "-serial", "stdio", "-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    if firmware == "uefi":
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={UEFI}"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=BOOT_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        return (exc.stdout or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace")


@pytest.mark.boot
class BootSuite:
    """Needs a fixture `case`, a CloudCase."""

    @pytest.mark.parametrize("firmware", ["bios", "uefi"])
    def test_image_comes_up_as_it_is_registered(self, case, boot_parts, tmp_path, firmware):
        image = tmp_path / "disk.raw"
        bootable.make(image, boot_parts, is_uefi=firmware == "uefi")
        result = case.upload(image)
        assert case.firmware(result) == firmware
        disk = tmp_path / "back.raw"
        disk.write_bytes(case.disk(result))
        assert f"clouduploader: came up by {firmware}" in boot(disk, firmware)
