"""All routes of the API."""

from clouduploader.server.api import (
    accounts,
    cluster,
    cluster_image,
    images,
    job_log,
    jobs,
    me,
    openapi,
    platforms,
    service,
    tokens,
)
from clouduploader.server.api.endpoint import Endpoint

ROUTES: list[Endpoint] = [
    *me.ROUTES,
    *jobs.ROUTES,
    *job_log.ROUTES,
    *images.ROUTES,
    *platforms.ROUTES,
    *accounts.ROUTES,
    *tokens.ROUTES,
    *service.ROUTES,
    *cluster.ROUTES,
    *cluster_image.ROUTES,
    *openapi.ROUTES,
]
