"""All routes of the API."""

from clouduploader.server.api import jobs, me, openapi, platforms
from clouduploader.server.api.endpoint import Endpoint

ROUTES: list[Endpoint] = [*me.ROUTES, *jobs.ROUTES, *platforms.ROUTES, *openapi.ROUTES]
