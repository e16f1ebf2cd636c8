"""The time of a signature, as in the header X-Amz-Date: YYYYMMDD'T'HHMMSS'Z' (IAM user guide)."""

import datetime

FORMAT = "%Y%m%dT%H%M%SZ"


def serialize_amz_date(moment: datetime.datetime) -> str:
    """Write a time, which must be in UTC."""
    return moment.strftime(FORMAT)


def parse_amz_date(text: str) -> datetime.datetime | None:
    """Read a time; None if it is none."""
    try:
        return datetime.datetime.strptime(text, FORMAT).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
