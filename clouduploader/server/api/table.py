"""All routes of the API."""

from clouduploader.server.api import images, job_log, jobs, me, openapi, platforms
from clouduploader.server.api.endpoint import Endpoint

ROUTES: list[Endpoint] = [
    *me.ROUTES,
    *jobs.ROUTES,
    *job_log.ROUTES,
    *images.ROUTES,
    *platforms.ROUTES,
    *openapi.ROUTES,
]
