"""What the EBS direct APIs refuse with."""

from clouduploader.sandbox.aws.faults import STATUSES


class EbsError(Exception):
    """A refusal.

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
    """Make the refusal of a parameter."""
    return EbsError("ValidationException", message, reason)


def unknown_snapshot(snapshot_id: str) -> EbsError:
    """Make the refusal for a snapshot that is not there."""
    return EbsError("ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.", "SNAPSHOT_NOT_FOUND")
