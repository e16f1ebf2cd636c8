"""GPG's keys in `HOME/.gnupg`.

gpg does not work on that directory itself but on a private, short-lived one of links to it. So each
use has an agent of its own that can be ended without harm to others, the path of its socket is
short enough (longer than 107 bytes, and gpg-agent just fails), and nothing of a person's gpg.conf
changes what a job does.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    LocalIOError,
    MissingFileError,
    MissingProgramError,
    TargetDataError,
    TransientError,
)
from clouduploader.store.keyring import key_files
from clouduploader.util import deadline, files, privileges

if TYPE_CHECKING:
    import gnupg

T = TypeVar("T")
NAME = ".gnupg"
PUBLIC_RING = "pubring.kbx"
MAX_PLAIN_BYTES = 1 << 20  # as much as target data may be; a packed message can grow a thousandfold
GPG_SECONDS = 300.0  # ours: it takes seconds, to make a pair of RSA on a machine that is busy a minute
AGENT_SECONDS = 10.0  # for an agent to take note that it is to end
KEYGEN_HINT = "`clouduploader keygen` makes one."

_DIRECTORIES = ("private-keys-v1.d", "openpgp-revocs.d")
_LINKED = (*_DIRECTORIES, PUBLIC_RING, "pubring.gpg")
_MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 bytes, the last one is NUL
_LONGEST_SOCKET = "/clouduploader-gpg-12345678/S.gpg-agent.browser"
_PARAMETERS = "{algorithms}\nName-Real: clouduploader\nExpire-Date: 0\n%no-protection\n%commit\n"
_ALGORITHMS = (
    "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign\n"
    "Subkey-Type: ECDH\nSubkey-Curve: cv25519\nSubkey-Usage: encrypt",
    # for machines in FIPS mode, whose libgcrypt refuses these curves
    "Key-Type: RSA\nKey-Length: 3072\nKey-Usage: sign\nSubkey-Type: RSA\nSubkey-Length: 3072\nSubkey-Usage: encrypt",
)


class GpgKeys:
    """The key pairs of one home. See `keyring.Keyring`; each call starts gpg and waits for it.

    Attributes:
        path: The directory of keys.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.path = home / NAME
        self._environment = {"PATH": environment.get("PATH", os.defpath), "LC_ALL": "C"}

    def decrypt(self, message: str) -> str:
        """Decrypt an armored PGP message; one line end at the end of the plain text is cut off.

        Raises:
            TargetDataError: It can't be.
            MissingProgramError: gpg is not installed.
        """
        try:
            with self._session(self.path) as gpg:
                # A signature says nothing here, and gpg would fail if it could not be checked.
                options = ["--skip-verify", "--max-output", str(MAX_PLAIN_BYTES)]
                result = _in_time(lambda: gpg.decrypt(message.encode(errors="replace"), extra_args=options))
        except (LocalIOError, MissingFileError) as exc:
            raise TargetDataError(f"it is encrypted, but {exc.message}") from exc
        if not result.ok or result.returncode:
            said = f"gpg says '{result.status}'" if result.status else f"gpg ended with {result.returncode}"
            reason = "it is damaged or too long" if result.ok else said
            raise TargetDataError(f"it can't be decrypted with the keys in {self.path}: {reason}")
        try:
            return re.sub(r"\r?\n\Z", "", result.data.decode())
        except UnicodeDecodeError:
            pass  # raised out here, for that exception carries the plain text
        raise TargetDataError("what was encrypted is not UTF-8")

    def encrypt(self, text: str) -> str:
        """Encrypt for the newest key pair; an armored PGP message.

        Raises:
            TargetDataError: The text has what is no character.
            MissingFileError: There is none.
            LocalIOError: gpg failed.
            MissingProgramError: gpg is not installed.
        """
        data = key_files.encoded(text)
        with self._session(self.path) as gpg:
            result = _in_time(lambda: gpg.encrypt(data, [self._newest(gpg)]))
        if not result.ok:
            raise LocalIOError(f"gpg can't encrypt for the key in {self.path}: it says '{result.status}'")
        return str(result.data.decode("ascii"))

    def public_key(self) -> str:
        """Give the public half of the newest key pair, armored.

        Raises:
            MissingFileError: There is none.
            LocalIOError: gpg failed.
            MissingProgramError: gpg is not installed.
        """
        with self._session(self.path) as gpg:
            return str(_in_time(lambda: gpg.export_keys(self._newest(gpg))))

    def generate(self) -> tuple[Path, ...]:
        """Make a key pair in a directory that must be missing or empty. Takes up to seconds.

        gpg works in a private directory; all is copied from there to `.gnupg.new`, which is renamed once it is on disk.

        Returns:
            What was made.

        Raises:
            CannotCreateError: There are keys, or it can't be made.
            MissingProgramError: gpg is not installed.
        """
        with key_files.creating(self.path), _short_dir() as scratch:
            self._refuse_to_overwrite()
            made = Path(scratch)
            for name in _DIRECTORIES:
                (made / name).mkdir()
            self._generate_in(made)
            contents = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
            with privileges.as_owner(self.path.parent):
                self._put(contents)
        return (self.path,)

    def _refuse_to_overwrite(self) -> None:
        if self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError

    def _put(self, contents: Mapping[Path, bytes]) -> None:
        new = self.path.with_name(f"{NAME}.new")
        files.remove_tree(new)  # of a run that was killed; that key was never used
        try:
            for path in (new, *(new / name for name in _DIRECTORIES)):
                files.make_directory(path, mode=files.PRIVATE_DIRECTORY_MODE)
            for name, data in contents.items():
                files.replace_file(new / name, data, mode=files.PRIVATE_MODE)
            new.rename(self.path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        files.sync_directory(self.path.parent)

    def _generate_in(self, new: Path) -> None:
        with self._session(new) as gpg:
            for algorithms in _ALGORITHMS:
                order = _PARAMETERS.format(algorithms=algorithms)
                if _in_time(functools.partial(gpg.gen_key, order)).fingerprint:
                    break
            else:
                raise CannotCreateError(f"gpg can't make a key pair for {self.path}")
            shutil.copyfile(Path(gpg.gnupghome, PUBLIC_RING), new / PUBLIC_RING)

    def _newest(self, gpg: "gnupg.GPG") -> str:
        # A capital E: the key as a whole can encrypt, is neither expired nor revoked (GnuPG, DETAILS)
        keys = [key for key in gpg.list_keys(secret=True) if "E" in key["cap"]]
        if not keys:
            raise MissingFileError(f"there is no key pair in {self.path}", hint=KEYGEN_HINT)
        return str(max(keys, key=lambda key: int(key["date"]))["fingerprint"])

    @contextlib.contextmanager
    def _session(self, path: Path) -> "Iterator[gnupg.GPG]":
        """Give a gpg that sees the keys in a directory; its agent ends with the block."""
        import gnupg

        if not shutil.which("gpg", path=self._environment["PATH"]):
            raise MissingProgramError("gpg is not installed", hint="Install GnuPG.")
        try:
            shared = [entry for entry in path.iterdir() if entry.name in _LINKED]
            with _short_dir() as homedir:
                for entry in shared:
                    Path(homedir, entry.name).symlink_to(entry.absolute())
                try:
                    options = ["--pinentry-mode", "error", "--trust-model", "always"]
                    yield _in_time(lambda: gnupg.GPG(gnupghome=homedir, options=options, env=self._environment))
                finally:
                    self._end_agent(homedir)
        except FileNotFoundError as exc:
            raise MissingFileError(f"there is no {exc.filename}", hint=KEYGEN_HINT) from exc
        except OSError as exc:
            raise LocalIOError(f"gpg can't use {exc.filename or path}: {exc.strerror or exc}") from exc
        except ClouduploaderError:
            raise
        except Exception as exc:  # noqa: BLE001 python-gnupg raises what becomes of words of gpg that it can't read
            said = " ".join(str(exc).split())
            # "from None": what gpg has given may stand in its exception
            raise LocalIOError(f"gpg does not work: {said}", hint="Try `gpg --version`; reinstall GnuPG.") from None

    def _end_agent(self, homedir: str) -> None:
        # without gpgconf, or with one that hangs: it ends when its socket is gone
        with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
            subprocess.run(
                ["gpgconf", "--homedir", homedir, "--kill", "gpg-agent"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=AGENT_SECONDS,
                check=False,
            )


def _in_time(work: Callable[[], T]) -> T:
    """Let gpg do something, and end it if it takes for ever: a lock that is held, or a card that is not there.

    Raises:
        TransientError: It took too long.
    """
    try:
        return deadline.within(GPG_SECONDS, work)
    except deadline.OverdueError:
        raise TransientError(
            f"gpg did not end within {GPG_SECONDS:.0f} s", hint="Look whether another gpg holds the keys."
        ) from None


def _short_dir() -> tempfile.TemporaryDirectory[str]:
    """Make a private directory whose path leaves room for the names of gpg-agent's sockets."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent + _LONGEST_SOCKET)) > _MAX_SOCKET_PATH:
        parent = "/tmp"  # noqa: S108 what is made there is private (0700)
    # the agent removes its sockets by itself, maybe while the directory is being removed
    return tempfile.TemporaryDirectory(prefix="clouduploader-gpg-", dir=parent, ignore_cleanup_errors=True)
