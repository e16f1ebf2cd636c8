"""What a platform may offer besides uploads."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from clouduploader.plugin.events import Reporter
from clouduploader.plugin.fields import JsonValue
from clouduploader.plugin.results import Finding
from clouduploader.util.frozen import frozen


class Hints(Protocol):
    """What a platform can tell a person on the command line about the values of its fields. Optional.

    A platform that has it offers it as its attribute `hints`. No network; making it is as cheap as making the platform.
    """

    def choices(self, name: str) -> Sequence[str]:
        """Values that a field can have, beside those of `Field.allowed`; for completion and suggestions.

        There may be others, such as a new region: what is not among them is not wrong for that. But it may be misspelt:
        `submit` takes it from a file only, and `upload` checks the image against the cloud before there is a job.
        """

    def default(self, name: str) -> str | None:
        """What the person's own environment says for a field that is left out; None if it says nothing.

        Raises:
            ClouduploaderError: It can't be found out, for something in there is wrong.
        """


@frozen(kw_only=True)
class AccountGuide:
    """What a user needs in order to open his account in the cloud to this service.

    Attributes:
        facts: Short texts by their names in lower case with underscores, for example `account_id`.
        policies: JSON documents by their names, as the cloud's console takes them.
        scripts: The same, ready to be run: whole texts by the names in `Accounts.scripts`.
        consoles: The pages of the cloud's console that take a script, by its name.
    """

    facts: Mapping[str, str]
    policies: Mapping[str, JsonValue]
    scripts: Mapping[str, str]
    consoles: Mapping[str, str] = dataclasses.field(default_factory=dict)


@frozen()
class Verification:
    """What came out when an account was tried.

    Attributes:
        findings: What was tried, and how it went.
        is_usable: Whether the service gets into it.
        is_open: Whether anybody does who uses this service, not only its user (the "confused deputy").
    """

    findings: tuple[Finding, ...]
    is_usable: bool
    is_open: bool


class Accounts(ABC):
    """What a platform has to do with its users' accounts, where they have some in its cloud. Optional.

    A platform that has it derives a class from this, offers an object of it as its attribute `accounts`, and marks
    with `is_of_account` which of its fields an account holds. Making it is as cheap as making the platform. The
    values of an account are strings by the names of these fields, as far as they are known yet; decrypted.

    Attributes:
        description: How the service gets into an account, and what its user has to do, for people: whole sentences.
        extras: What the service can be allowed besides, by names of lower-case letters: a few words each.
        scripts: What `AccountGuide.scripts` holds, by the same names: a few words each.
    """

    description: str = ""
    extras: Mapping[str, str] = MappingProxyType({})
    scripts: Mapping[str, str] = MappingProxyType({})

    def new_values(self) -> Mapping[str, str]:
        """Make up what the service itself gives to a new account, in clear. No network.

        Returns:
            Values that no account had before; by default none.
        """
        return {}

    @abstractmethod
    def guide(self, values: Mapping[str, str], *, extras: Sequence[str], reporter: Reporter) -> AccountGuide:
        """Say what the user has to do in the cloud. Uses the network.

        Args:
            values: Of the account.
            extras: What the service is to be allowed besides, names of `extras`.
            reporter: Told what is done.

        Raises:
            ClouduploaderError: Something that the guide must tell can't be found out.
        """

    @abstractmethod
    def verify(self, values: Mapping[str, str], *, reporter: Reporter) -> Verification:
        """Try whether the service gets in, and no other user through it. Changes nothing; uses the network.

        A finding is only what is known: what could not be tried, for example without network, is an error.

        Raises:
            DataError: The account lacks what is needed to get in.
            ClouduploaderError: It could not be tried.
        """
