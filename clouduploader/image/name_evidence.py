"""What the name of an image promises of its bytes.

What a file is, its bytes tell. But where they show no packing and no format though the name is that of one, they are
damaged, or something else altogether: a single bit in the first bytes of an `.xz` makes it look like a raw disk.
"""

from clouduploader.model.disk import Compression, DiskFormat, Image, NoDisk

_TAR = ".tar"
_PACKINGS = {".xz", ".gz", ".bz2", ".zst", ".zstd", _TAR}
_TARBALLS = {".txz": ".xz", ".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".tzst": ".zst"}
_FOREIGN = {".lzma", ".lz", ".lz4", ".lzo", ".z", ".zip", ".7z", ".rar", ".cpio", ".vhdx", ".vdi", ".qed"}
_VHD = {".vhd", ".vhdfixed"}
_DISKS = {".qcow2", ".vmdk", *_VHD}
_FLAT = "-flat.vmdk"  # the raw disk of a VMDK in two files; Virtual Disk Format 5.0, "Flat"


def objection(image: Image) -> NoDisk | None:
    """Say what an image is called and is not; None if its bytes are what its name promises, or known to be other.

    The footer of a fixed VHD that is packed is not looked for: it comes last.
    """
    suffixes = [f".{part}" for part in image.filename.lower().split(".")[1:]]
    outer = suffixes.pop() if suffixes else ""
    if outer in _TARBALLS:
        suffixes.append(_TAR)
        outer = _TARBALLS[outer]
    if outer in _PACKINGS | _FOREIGN and image.packing is Compression.RAW:
        return _not_as_called(outer)
    inner = outer
    if outer in _PACKINGS and outer != _TAR:
        inner = suffixes.pop() if suffixes else ""
    is_told = image.is_tarball or image.disk_format is not DiskFormat.RAW
    is_packed_vhd = inner in _VHD and image.packing is not Compression.RAW
    is_flat = image.filename.lower().endswith(_FLAT)
    if is_told or is_packed_vhd or is_flat or inner not in {_TAR, *_DISKS}:
        return None
    return _not_as_called(inner)


def _not_as_called(suffix: str) -> NoDisk:
    return NoDisk(
        reason=f"it is called {suffix}, and its bytes are not that: they are damaged, or others", is_known=True
    )
