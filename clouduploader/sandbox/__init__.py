"""A private cloud on this machine, for trying and for testing.

`clouduploader sandbox [-- COMMAND...]` runs a shell or a command in new user, network, mount and
PID namespaces. In there the loopback has every IPv4 address, so nothing leaves the machine, and
the address of a made-up instance leads to an emulator. No root is needed.

Processes: `host` (the command itself) starts `init` in the namespaces; `init` starts `server`, which emulates the
cloud, and then the command. When the command ends, `init` ends, and with it everything in there. The command sees
itself as root.

A cloud is a package beside these modules, named in `registry`; `cloud` says what it has to offer,
and what the others do for it: namespaces, life and end of all processes, directory and environment, spool with a job,
clock, record of calls, faults, certificates, control channel; a `gateway` before its servers, programs of other
projects (`foreign_server`), and their `installation`.

One directory holds all of a sandbox (see `layout`), sandbox.json in it describes it, and the environment
variable CLOUDUPLOADER_SANDBOX names the directory. Of every cloud sandbox.json has these, and what the cloud adds:

    ca                 the certificate of the CA that https endpoints in there have theirs from
    home, spool        as CLOUDUPLOADER_HOME and CLOUDUPLOADER_SPOOL; job 1 waits in the spool, as OBS writes it
    calls              a file with one JSON object for each API call
    sample             what job 1's image holds once unpacked (size_bytes, sha256)

**Control**, for tests, over HTTP at the Unix socket `socket` in the directory, which can be reached from outside too,
and where a cloud offers it; bodies and answers are JSON:

    POST /sandbox/faults    {"action": "CreateVolume"} or a list of such; replaces what was there.
                            [] ends all faults. Which calls, counted from now on (default: every):
                              nth: 2          only this one
                              first: 5        only so many
                              after: 10       not so many at the beginning
                              every: 3        only each third
                              probability: 0.01, seed: 1
                              rate: 1000      only what goes beyond so many a second, for which it is
                                              throttled; burst: how many at once (default: a second's)
                            What happens to them, and what the cloud adds:
                              code, message, status: the answer instead of doing it
                              delay_seconds:  before it is done
                              lose_answer:    true: do it, then hang up
                            Of clouds that stand behind a `gateway` also:
                              stall: "read" or "done", cut_request_bytes: 1000, cut_answer: 0.5, corrupt: true
    POST /sandbox/clock     {"offset_seconds": 3600}: how far the cloud's clock is ahead of this machine's
    POST /sandbox/reset     everything as at the start: cloud, home, spool, faults, clock, calls
    GET  /sandbox/calls     the API calls so far: time, service, action, status, code, seconds, and what the cloud adds
"""
