"""The target of an upload: its platform, its target data decrypted, and the key of its journal.

A server that hands a job to another host opens the target as that host's uploader does, so that both have one key.
"""

from clouduploader.errors import TargetDataError
from clouduploader.plugin import Platform
from clouduploader.plugin.fields import MIN_SECRET_LENGTH
from clouduploader.store import journal, keyring, target_data
from clouduploader.store.config import Config
from clouduploader.store.target_data import TargetData
from clouduploader.uploads import registry
from clouduploader.uploads.task import UploadTask
from clouduploader.util.filenames import base_name
from clouduploader.util.frozen import frozen


@frozen(kw_only=True)
class OpenedTarget:
    """The target of an upload that can be prepared.

    Attributes:
        platform: Answers to it.
        data: The target data.
        filename: The image's real name.
        key: Of the upload's journal; secret fields are no part of it.
    """

    platform: Platform
    data: TargetData
    filename: str
    key: str


def open_target(task: UploadTask, config: Config) -> OpenedTarget:
    """Load the platform of an upload, and decrypt and check its target data. Starts gpg where that is needed.

    Raises:
        ClouduploaderError: The upload fails with this error, wherever it is opened.
    """
    platform = registry.load(task.target, config)
    keys = keyring.Keyring(config.home.value, config.environment)
    data = target_data.read(task.targetdata, platform, keys)
    if any(len(secret) < MIN_SECRET_LENGTH for secret in data.secrets):
        raise TargetDataError(
            f"the target data have an encrypted value of less than {MIN_SECRET_LENGTH} characters: masked in the log,"
            " it would take parts out of other words",
            hint="Take a longer one, or do not encrypt it.",
        )
    filename = _real_name(task, data)
    secret = {field.name for field in platform.fields if field.is_secret}
    values = {name: value for name, value in data.values.items() if name not in secret}
    key = journal.key_of(target=task.target, user=task.user, filename=filename, values=values)
    return OpenedTarget(platform=platform, data=data, filename=filename, key=key)


def _real_name(task: UploadTask, data: TargetData) -> str:
    """Return the image's name: the caller's, the job's, the target data's, or the file's own."""
    named = data.values.get("filename")
    candidates = [
        task.filename,
        task.job.filename if task.job else None,
        named if isinstance(named, str) else None,
        task.image_path.name,
    ]
    return base_name(next(name for name in candidates if name))
