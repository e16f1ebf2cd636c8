"""Errors of the EBS direct APIs."""

from clouduploader.sandbox.aws.faults import STATUSES


class EbsError(Exception):
    """An error of Amazon's, to be answered.

    Args:
        code: Amazon's name of the exception.
        message: For people.
        reason: One of those that botocore's model knows for this code, or None.
        status: Of HTTP; None for what belongs to the code.
    """

    def __init__(self, code: str, message: str, reason: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.status = status or STATUSES.get(code, 400)


def invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> EbsError:
    """Create the error for a bad parameter."""
    return EbsError("ValidationException", message, reason)


def unknown_snapshot(snapshot_id: str) -> EbsError:
    """Create the error for a snapshot that is not there."""
    return EbsError("ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.", "SNAPSHOT_NOT_FOUND")
