"""Journals of uploads, for the time after a crash: which objects they asked the cloud for, and got.

    STATE/KEY/            0700, one for each upload, whatever number of tries it takes
        journal           one JSON object a line; locked (flock) as long as the upload lives
        targetdata        0600: the target data as they came, secrets encrypted where the home has a key, while
                          something may be left; of an upload by hand for some days after a failure too, so that it
                          can be run again
        platform/         the platform's own files, while something may be left

Each line of `journal` is on the disk before what it tells of is done. The last one may be torn by a crash: then
nothing came of it, and the next try cuts it off. Whatever else is no entry is passed over by all readers.

Entries have `what` and `time` (UTC, ISO 8601), and by `what`:

* `begin`: a try began: `job` (or null), `user`, `target`, `filename`, `image` and `work_dir` (paths), `by_hand`,
  `pid`
* `asked`: the cloud is about to be asked for something: `kind`, `region`, and what the platform adds; with a `token`
  it takes the place of an earlier one of that token, of which the cloud makes one thing only
* `refused`: the oldest `asked` of that `kind` and `region` came to nothing
* `made`, `removed`: `kind`, `id`, `region`; `made` also answers the oldest `asked` of that kind and region
* `kept`: `kind`, `id`, `region`: of what a failed try left on purpose, because its target data ask for that
* `end`: the try is over: `outcome` (`succeeded`, `failed`, `stopped`, or `cleaned` by `clouduploader cleanup`),
  `result` (or null), `objects` and `shortfalls` (of a success)

and whatever the platform writes for itself.

Of an upload on another host this is a copy (`replica.py`), made and locked by the server: the uploader there writes a
journal of its own, without target data, and its host confirms that the copy has each entry before the uploader goes on
(`witness.py`).
"""

from clouduploader.store.journal.directory import FILE_NAME, PLATFORM_NAME, TARGETDATA_NAME
from clouduploader.store.journal.entries import (
    AttemptOutcome,
    Entry,
    JournalState,
    fields_of,
    is_key,
    key_of,
    object_of,
    parse,
    results_of,
    state_of,
)
from clouduploader.store.journal.reader import JournalContents, forget, prune, read, read_all, read_open
from clouduploader.store.journal.replica import JournalReplica
from clouduploader.store.journal.witness import Witness, witness_of
from clouduploader.store.journal.writer import UploadJournal, UploadStart, open_journal

__all__ = [
    "FILE_NAME",
    "PLATFORM_NAME",
    "TARGETDATA_NAME",
    "AttemptOutcome",
    "Entry",
    "JournalContents",
    "JournalReplica",
    "JournalState",
    "UploadJournal",
    "UploadStart",
    "Witness",
    "fields_of",
    "forget",
    "is_key",
    "key_of",
    "object_of",
    "open_journal",
    "parse",
    "prune",
    "read",
    "read_all",
    "read_open",
    "results_of",
    "state_of",
    "witness_of",
]
