"""What administrators see: the service, and its users."""

import asyncio
import collections
import datetime
import importlib.metadata
import platform
from typing import Annotated

from aiohttp import web
from msgspec import Meta

import clouduploader
from clouduploader.admin import accounts as admin_accounts
from clouduploader.admin import tokens as admin_tokens
from clouduploader.errors import JobFileError, NoSuchJobError
from clouduploader.server import quotas, replies
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.api.jobs import ShownState
from clouduploader.server.call import RouteCall

LIBRARIES = ("aiohttp", "msgspec", "cryptography")


class CheckEntry(documents.Document):
    """A check of whether all is well."""

    name: str
    fault: Annotated[str | None, Meta(description="What is not well; null if it is.")]


class Disk(documents.Document):
    """The file system of the spool."""

    free_bytes: int
    kept_bytes: Annotated[int, Meta(description="What no image may fill.")]
    free_inodes: Annotated[int | None, Meta(description="How many files can still be made; null for any number.")]


class ServiceState(documents.Document):
    """How the service is."""

    started: documents.Time
    versions: Annotated[dict[str, str], Meta(description="Of the program and of what it is made of.")]
    queue: Annotated[
        dict[ShownState, int], Meta(description="How many jobs are in each state, but those that are over.")
    ]
    worker: Annotated[str | None, Meta(description="Why no worker starts uploads; null if one does.")]
    cluster: Annotated[bool, Meta(description="Whether the uploads are done by other hosts.")]
    images: Annotated[int, Meta(description="How many images come in pieces, or wait for their job.")]
    receiving: Annotated[int, Meta(description="How many images are coming in right now.")]
    disk: Disk
    checks: list[CheckEntry]


class UserEntry(documents.Document):
    """A user of the service."""

    name: str
    tokens: Annotated[int, Meta(description="How many the user has.")] = 0
    accounts: Annotated[int, Meta(description="How many the user has.")] = 0
    jobs: Annotated[int, Meta(description="How many of the user's are not over.")] = 0
    bytes: Annotated[int, Meta(description="Of the images of these, and of those that come in pieces.")] = 0


class UserList(documents.Document):
    """Those who have a token, an account, or a job or image that is not over."""

    users: list[UserEntry]


async def show_service(call: RouteCall) -> web.StreamResponse:
    """Tell how the service is."""
    state = call.state

    def look() -> ServiceState:
        counts: collections.Counter[ShownState] = collections.Counter()
        for name in state.jobs.running_names():
            try:
                counts[ShownState(state.jobs.read(name)[0].state)] += 1
            except NoSuchJobError:
                continue
            except JobFileError:
                counts[ShownState.DAMAGED] += 1
        checks, worker_fault = state.check_health(), state.worker_fault()
        versions = {"clouduploader": clouduploader.__version__, "python": platform.python_version()}
        return ServiceState(
            started=datetime.datetime.fromtimestamp(state.started, datetime.UTC),
            versions=versions | {name: importlib.metadata.version(name) for name in LIBRARIES},
            queue=dict(counts),
            worker=worker_fault and replies.without_directories(worker_fault),
            cluster=state.cluster is not None,
            images=sum(not image.job for image in state.images.images()),
            receiving=state.receiving,
            disk=Disk(state.jobs.free_bytes(), state.settings.keep_free_bytes, state.jobs.free_inodes()),
            checks=[CheckEntry(one.name, one.fault and replies.without_directories(one.fault)) for one in checks],
        )

    return documents.answer(await asyncio.to_thread(look))


async def list_users(call: RouteCall) -> web.StreamResponse:
    """List the users, with what they have here."""
    state = call.state

    def look() -> UserList:
        users: dict[str, UserEntry] = {}

        def user(name: str) -> UserEntry:
            return users.setdefault(name, UserEntry(name))

        for token in admin_tokens.list_tokens(state.config, None):
            user(token.token.user).tokens += 1
        for account in admin_accounts.list_accounts(state.config, None):
            user(account.user).accounts += 1
        for name, used in quotas.usage(state.jobs, state.images).items():
            user(name).jobs, user(name).bytes = used.jobs, used.size_bytes
        return UserList(sorted(users.values(), key=lambda one: one.name))

    return documents.answer(await asyncio.to_thread(look))


ROUTES: list[Endpoint] = [
    endpoint("/service", show_service, Right.SEE_SERVICE, answer=ServiceState, is_polled=True),
    endpoint("/users", list_users, Right.SEE_SERVICE, answer=UserList),
]
