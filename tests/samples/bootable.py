"""A small real image, made with Debian's tools: GRUB, Debian's kernel, and an initramfs that says how it came up.

Needs the Debian packages that `packaging/boot` names, and apt for the kernel.
"""

import gzip
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

KERNEL_PACKAGE = "linux-image-cloud-amd64"
SECTOR = 512
DISK_BYTES = 96 << 20
CORE_SECTOR = 2048  # of the partition for GRUB's core image; it has a MiB
ESP_SECTOR = 4096
ESP_BYTES = 88 << 20
MODULES = ("part_gpt", "fat", "normal", "linux", "serial", "terminal", "search", "search_fs_file")
CONFIGURATION = """\
serial --unit=0 --speed=115200
terminal_output serial
search --set=root --file /clouduploader.cfg
linux /vmlinuz console=ttyS0 panic=-1
initrd /initrd
boot
"""
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
if [ -d /sys/firmware/efi ]; then way=uefi; else way=bios; fi
echo "clouduploader: came up by $way" > /dev/ttyS0
/bin/busybox poweroff -f
"""


def make(path: Path, directory: Path, *, is_uefi: bool) -> None:
    """Make a raw disk that boots by UEFI or by BIOS, and not by the other.

    Args:
        path: The image.
        directory: For what goes into it; the kernel's package in there is used again.
        is_uefi: Whether it is UEFI.
    """
    esp = directory / "esp"
    esp.unlink(missing_ok=True)
    files = {
        "vmlinuz": _kernel(directory),
        "initrd": _initramfs(directory),
        "clouduploader.cfg": directory / "grub.cfg",
    }
    (directory / "grub.cfg").write_text(CONFIGURATION)
    _run("truncate", f"--size={ESP_BYTES}", esp)
    _run("mkfs.fat", "-F", "32", esp)
    for name, source in files.items():
        _run("mcopy", "-i", esp, source, f"::{name}")
    if is_uefi:
        _run("mmd", "-i", esp, "::EFI", "::EFI/BOOT")
        loader = _grub(directory, "x86_64-efi", ())
        _run("mcopy", "-i", esp, loader, "::EFI/BOOT/BOOTX64.EFI")
    path.unlink(missing_ok=True)
    _run("truncate", f"--size={DISK_BYTES}", path)
    parts = ("-n", f"1:{CORE_SECTOR}:+1M", "-t", "1:ef02", "-n", f"2:{ESP_SECTOR}:0", "-t", "2:ef00")
    _run("sgdisk", "--set-alignment=1", *parts, path)
    with path.open("r+b") as disk:
        disk.seek(ESP_SECTOR * SECTOR)
        disk.write(esp.read_bytes()[: DISK_BYTES - (ESP_SECTOR + 34) * SECTOR])
        if not is_uefi:
            _write_bios_loader(disk, _grub(directory, "i386-pc", ("biosdisk",)).read_bytes())


def _write_bios_loader(disk, core: bytes) -> None:
    """Do what grub-bios-setup does; offsets from GRUB's `i386/pc/boot.h`."""
    boot = bytearray(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
    struct.pack_into("<Q", boot, 0x5C, CORE_SECTOR)  # GRUB_BOOT_MACHINE_KERNEL_SECTOR
    boot[0x64] = 0xFF  # GRUB_BOOT_MACHINE_BOOT_DRIVE: that which the BIOS names
    first = bytearray(core[:SECTOR])
    sectors = -(-len(core) // SECTOR) - 1
    struct.pack_into("<QHH", first, SECTOR - 12, CORE_SECTOR + 1, sectors, 0x820)  # the block list, from its end on
    disk.seek(0)
    disk.write(boot)
    disk.seek(CORE_SECTOR * SECTOR)
    disk.write(bytes(first) + core[SECTOR:])


def _grub(directory: Path, platform: str, more: Sequence[str]) -> Path:
    image = directory / platform
    argv = ("--compression=auto", "-O", platform, "-o", image, "-p", "/", "-c", directory / "grub.cfg")
    _run("grub-mkimage", *argv, *MODULES, *more)
    return image


def _kernel(directory: Path) -> Path:
    found = sorted((directory / "kernel/boot").glob("vmlinuz-*"))
    if not found:
        depends = subprocess.run(
            ["apt-cache", "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=True
        ).stdout
        (package,) = re.findall(r"Depends: (linux-image-\S+)", depends)
        _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, cwd=directory)
        (archive,) = directory.glob(f"{package}_*.deb")
        _run("dpkg-deb", "-x", archive, directory / "kernel")
        found = sorted((directory / "kernel/boot").glob("vmlinuz-*"))
    return found[-1]


def _initramfs(directory: Path) -> Path:
    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sys", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, check=True
    ).stdout
    (directory / "initrd").write_bytes(gzip.compress(packed))
    return directory / "initrd"


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(argv, cwd=cwd, check=True, capture_output=True)
