"""The interface between the sandbox's own processes and an emulated cloud."""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.layout import Layout
from clouduploader.util.frozen import frozen

CONTROL_PREFIX = "/sandbox/"  # of the paths of the control channel
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Routes = Mapping[tuple[str, str], Callable[[Any], Any]]
"""Control requests by method and path below CONTROL_PREFIX: from the JSON body, or None, to the answer."""


@frozen(kw_only=True)
class SandboxServices:
    """What the sandbox's server offers to a cloud.

    Attributes:
        layout: The sandbox's directory.
        clock: The cloud's clock.
        record: Gets the API calls that the cloud answers.
    """

    layout: Layout
    clock: CloudClock
    record: CallRecord


@frozen(kw_only=True)
class InitialState:
    """What a cloud begins with.

    Attributes:
        description: What sandbox.json says of it.
        target: The target of job 1.
        target_data: What OBS sends for an upload into the cloud.
    """

    description: Mapping[str, Any]
    target: str
    target_data: Mapping[str, Any]


class Emulator(abc.ABC):
    """A cloud that is emulated in the sandbox's server.

    Attributes:
        routes: Control requests that the cloud answers; called in any thread.
        faults: What goes wrong on purpose.
    """

    routes: Routes
    faults: Faults[Any]

    @abc.abstractmethod
    async def start(self, control: WsgiApp) -> None:
        """Start to serve and return when requests are answered.

        Called once, in the server's event loop, after a `reset`.

        Args:
            control: Answers the paths below CONTROL_PREFIX; a cloud with an HTTP endpoint offers them there too.
        """

    @abc.abstractmethod
    def reset(self) -> InitialState:
        """Return to the initial state, and write the cloud's files into home and bin, which are empty.

        Called in another thread than that of the event loop, before `start` and whenever a test asks for it.
        """


@frozen(kw_only=True)
class CloudOption:
    """The option of `clouduploader sandbox` that stands for a field of a cloud.

    Attributes:
        name: With its dashes.
        help: A sentence.
        metavar: What stands for a value in the help; None for the type's name.
        choices: Words that it takes, for completion.
    """

    name: str
    help: str
    metavar: str | None = None
    choices: Sequence[str] = ()


class SandboxCloud(abc.ABC):
    """A cloud as the command line, `host` and `init` know it, before any of its libraries is loaded.

    Implementations are dataclasses; their fields are the options: each has a default, of which a tuple stands for an
    option that can be repeated, and a CloudOption as `option` in its metadata. They survive JSON.

    Attributes:
        target: The target that uploads into it, by which it is in `registry.CLOUDS`.
        contents: What is in it, a list of things for the command's help.
        advice: What to try in there, for people: some lines, before the examples.
        programs: Programs that must be installed, each with Debian's package.
        modules: Python packages that must be installed, from the extra `sandbox`.
        variable_prefixes: Environment variables that do not get into the sandbox.
        server_environment: Environment variables of the sandbox's server.

    Raises:
        UsageError: An option has a value that it can't have.
    """

    target: ClassVar[str]
    contents: ClassVar[str]
    advice: ClassVar[str]
    programs: ClassVar[Mapping[str, str]]
    modules: ClassVar[tuple[str, ...]]
    variable_prefixes: ClassVar[tuple[str, ...]]
    server_environment: ClassVar[Mapping[str, str]]

    @abc.abstractmethod
    def install(self, say: Callable[[str], None]) -> None:
        """Install what the cloud runs in environments of their own, unless that was done; see `installation`.

        Args:
            say: Told what takes long, in a line.

        Raises:
            ClouduploaderError: It can't be installed.
        """

    @abc.abstractmethod
    def headline(self, described: Mapping[str, Any]) -> str:
        """Say where it is, and what is particular in it: a clause; sandbox.json is given."""

    @abc.abstractmethod
    def facts(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what a person must know of it, by what it is; sandbox.json is given."""

    @abc.abstractmethod
    def examples(self, layout: Layout) -> Sequence[str]:
        """Return commands to try in there; the first is an upload of the sample."""

    @abc.abstractmethod
    def describe(self, described: Mapping[str, Any], result: str) -> Mapping[str, str]:
        """Return what the cloud's own API tells of an image; called by a command in the sandbox.

        Args:
            described: See sandbox.json.
            result: Of the upload.
        """

    @abc.abstractmethod
    def account_values(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the values of an account (see Accounts) in it, which `submit` takes; sandbox.json is given."""

    @abc.abstractmethod
    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the environment variables that lead a command in the sandbox to the cloud."""

    @abc.abstractmethod
    def create_emulator(self, services: SandboxServices) -> Emulator:
        """Load the cloud's libraries and create it, in the server's event loop."""
