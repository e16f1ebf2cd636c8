"""An object store that speaks S3: objects are put, lent by a URL of limited life, and removed.

The store compares each part with a SHA-256 that was made here. The credentials are those of a profile in the home; no
URL but the lent one has a part in them, and no error shows more than the store's own word for what is wrong.
"""

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import botocore.config
import botocore.exceptions
import botocore.session

from clouduploader.cluster.settings import StorePlace
from clouduploader.errors import ClouduploaderError, LocalIOError, NetworkError, PlatformReplyError, TransientError

URL_SECONDS = 300  # a host follows the URL at once, and asks for a new one after a break
PART_BYTES = 32 << 20  # in memory; what is no longer is put as a whole
MAX_PARTS = 10_000  # Amazon's
DEFAULT_REGION = "us-east-1"  # what stores that have none take; a profile may name another one
CONFIG = {
    "connect_timeout": 5,  # a stop of the server waits for a request that is under way, and leases don't
    "read_timeout": 10,
    "retries": {"total_max_attempts": 1},  # the server sends what the store does not take
    "signature_version": "s3v4",
    "user_agent_extra": "clouduploader",
}


class ObjectStore:
    """One place in a store. Any thread may call the methods; all but `lend` ask the store, and block.

    Each of these may raise a ClouduploaderError: the store refuses, or can't be reached.

    Args:
        place: Where.
        home: With `.aws`.

    Raises:
        ClouduploaderError: There are no such credentials.
    """

    def __init__(self, place: StorePlace, home: Path) -> None:
        self._place = place
        self._name = place.endpoint or f"s3://{place.bucket}"
        session = botocore.session.Session()
        session.set_config_variable("credentials_file", str(home / ".aws" / "credentials"))
        session.set_config_variable("config_file", str(home / ".aws" / "config"))
        session.set_config_variable("profile", place.profile)
        style = {"addressing_style": "path"} if place.endpoint else {}
        with self._errors():
            self._client: Any = session.create_client(
                "s3",
                region_name=session.get_config_variable("region") or DEFAULT_REGION,
                endpoint_url=place.endpoint or None,
                config=botocore.config.Config(**CONFIG, s3=style),
            )

    def put(self, key: str, file: BinaryIO, size: int, *, check: Callable[[], None]) -> None:
        """Put a file as an object.

        Args:
            key: The object's name.
            file: Read from its beginning.
            size: How long it is, in bytes.
            check: Called before each part; raises to give up.
        """
        part_bytes = max(PART_BYTES, -(-size // MAX_PARTS))
        if size <= part_bytes:
            check()
            data = _read(file, part_bytes)
            with self._errors():
                self._client.put_object(**self._object(key), Body=data, ChecksumSHA256=_checksum(data))
            return
        with self._errors():
            begun = self._client.create_multipart_upload(**self._object(key), ChecksumAlgorithm="SHA256")
        upload = {**self._object(key), "UploadId": begun["UploadId"]}
        parts: list[dict[str, Any]] = []
        while data := _read(file, part_bytes):
            check()
            number, checksum = len(parts) + 1, _checksum(data)
            with self._errors():
                made = self._client.upload_part(**upload, PartNumber=number, Body=data, ChecksumSHA256=checksum)
            parts.append({"PartNumber": number, "ETag": made["ETag"], "ChecksumSHA256": checksum})
        with self._errors():
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    def lend(self, key: str) -> str:
        """Return a URL by which an object can be read for URL_SECONDS; a secret. Asks nothing of the store."""
        with self._errors():
            return str(
                self._client.generate_presigned_url(
                    "get_object", Params=self._object(key), ExpiresIn=URL_SECONDS, HttpMethod="GET"
                )
            )

    def remove(self, key: str) -> None:
        """Remove an object, and what was put of it and not completed; there may be neither."""
        with self._errors():
            found = self._client.list_multipart_uploads(Bucket=self._place.bucket, Prefix=key)
            for upload in found.get("Uploads") or ():
                if upload["Key"] == key:
                    self._client.abort_multipart_upload(**self._object(key), UploadId=upload["UploadId"])
            self._client.delete_object(**self._object(key))

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._place.bucket, "Key": key}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the SDK raises into errors of ours."""
        try:
            yield
        except botocore.exceptions.ClientError as exc:
            raise _refusal(self._name, exc) from None
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as exc:
            raise NetworkError(f"the object store {self._name} can't be reached: {type(exc).__name__}") from None
        except (botocore.exceptions.BotoCoreError, KeyError, ValueError, TypeError) as exc:
            raise PlatformReplyError(
                f"the object store {self._name} can't be used: {type(exc).__name__}",
                hint="Its keys are in .aws/credentials, in the section that image_store_profile names.",
            ) from None


def _refusal(name: str, error: botocore.exceptions.ClientError) -> ClouduploaderError:
    code = str(error.response.get("Error", {}).get("Code", "no reason given"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = TransientError if status >= 500 else PlatformReplyError
    return kind(f"the object store {name} refused: {code}")


def _read(file: BinaryIO, size_bytes: int) -> bytes:
    try:
        return file.read(size_bytes)
    except OSError as exc:
        raise LocalIOError(f"the image can't be read: {exc.strerror}") from exc


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
