"""A private AWS on this machine, for trying and for testing.

`clouduploader sandbox [-- COMMAND...]` runs a shell or a command in new user, network, mount and
PID namespaces. In there the loopback owns every IPv4 address, so nothing leaves the machine, and
the address of a made-up instance leads to a server of ours. No root is needed.

Processes: `host` (the command itself) starts `init` in the namespaces; `init` starts `server`
(moto, the EBS direct APIs and the ssh server of all helper instances, one process) and then the command. When the
command ends, `init` ends, and with it everything in there. The command sees itself as root.

One directory holds all of it (see `layout`), sandbox.json in it describes it, and the environment
variable CLOUDUPLOADER_SANDBOX names it:

    endpoint           http://127.0.0.1:5000, also AWS_ENDPOINT_URL
    ebs_endpoint       https://127.0.0.1:5443, also AWS_ENDPOINT_URL_EBS: the EBS direct APIs; localhost
                       is a name of its certificate too, 127.0.0.2 leads to it and is none
    ca                 the certificate of the CA that this one is from, also AWS_CA_BUNDLE
    account_id         the account that the images go to
    regions            those with a helper AMI in home/.ec2utils.conf; the first is `region`
    region
    role_arn           the customer's role; with external_id the OBS user may assume it
    role_name
    external_id
    vpc_id, subnet_id  of `region`, for uploads with a vpc_subnet_id
    helper_amis        by region
    kms_keys           by region: the ARN of the customer's key, alias/images; there is AWS's alias/aws/ebs too
    obs                access_key_id and secret_access_key, also in home/.aws/credentials
    auditor            the same of a user who may do everything: what `aws` and boto3 use in there
    home, spool        as CLOUDUPLOADER_HOME and CLOUDUPLOADER_SPOOL
    calls              a file with one JSON object for each API call
    volumes            a directory: VOLUME-ID.raw and SNAPSHOT-ID.raw, sparse, what is on the disks
    sample             what job 1's image holds once unpacked (size_bytes, sha256)
    wait_factor        what ec2uploadimg's waiting times are multiplied by

Job 1 waits in the spool, as OBS writes it. `ec2uploadimg` on PATH is the real one, with its
`time.sleep` shortened by `wait_factor`.

**Control**, for tests, over HTTP at the endpoint, and at the Unix socket `socket` in the directory,
which can be reached from outside too; bodies and answers are JSON:

    POST /sandbox/faults    {"action": "CreateVolume"} or a list of such; replaces what was there.
                            [] ends all faults. Which calls, counted from now on (default: every):
                              nth: 2          only this one
                              first: 5        only so many
                              after: 10       not so many at the beginning
                              every: 3        only each third
                              probability: 0.01, seed: 1
                              rate: 1000      only what goes beyond so many a second, for which it is
                                              throttled; burst: how many at once (default: a second's)
                            What happens to them:
                              code, message, status: the answer instead of doing it
                              delay_seconds:  before it is done
                              lose_answer:    true: do it, then hang up
                            For StartSnapshot, PutSnapshotBlock, CompleteSnapshot, ListSnapshotBlocks and
                            GetSnapshotBlock also:
                              reason:         of the answer, beside its code
                              by: "account"   whose rate it is (default: "snapshot", each its own)
                              stall:          nobody answers until the client hangs up, and
                                "read":       the body is not even read
                                "answer":     all is read, nothing is done
                                "done":       it is done
                              hang_up:        the connection is closed
                                "before":     before the body is read
                                "after":      when it has been read; nothing is done
                                "idle":       after a good answer, which did not say so
                              cut_answer: 0.5: do it, and hang up after this share of the answer
                              short_bytes: 3: do it; the body of the answer lacks so many at its end
                              wrong_checksum: true: do it, with another checksum in the answer
                              corrupt:        true: do it, with a byte of the block changed on the disk
                              expire:         true: all temporary credentials expire just before
                            The action "Connect" is a connection to there, before TLS; it knows
                            delay_seconds, stall and hang_up.
    POST /sandbox/expire    all temporary credentials expire now; with {"life_seconds": 5} those that
                            are made later end after so long, and say so (null: as asked for)
    POST /sandbox/expire-snapshots  all snapshots that wait for blocks are cancelled: in the state error,
                            with {"gone": true} not there any more
    POST /sandbox/clock     {"offset_seconds": 3600}: how far AWS's clock is ahead of this machine's;
                            the Timeout of pending snapshots goes by it
    POST /sandbox/policy    the policy document of the role, or null for ec2:*, ebs:* and kms:*
    POST /sandbox/pace      {"snapshot_seconds": 3}: how long a snapshot stays pending once it is complete
                            {"copy_seconds": 3}: how long a copied image does
                            {"hidden_seconds": 3}: how long a snapshot does not exist after StartSnapshot
                            What is not named takes no time.
    POST /sandbox/helper    {"mode": "up" | "silent" | "refuse"}: of port 22
                            {"sftp_delay_seconds": 0.1}: before each write, which is 32 KiB
                            {"command_delays": {"dd": 5}}: seconds, before a command with that word
                            {"broken": {"xz": "xz: Cannot allocate memory"}}: prints that, exit 1
                            What is not named goes back to its default.
    POST /sandbox/reset     everything as at the start: account, home, spool, faults, clock, calls
    GET  /sandbox/account   what is in the account beyond what the sandbox made itself; lists of
                            objects with id and region: instances, volumes, key_pairs,
                            security_groups, vpcs, subnets, gateways, route_tables, snapshots,
                            images (with all that was registered)
    GET  /sandbox/ebs       connections: open, peak, total; calls: by action and code ("ok", "dropped" for
                            what a fault left without an answer) how many; snapshots that StartSnapshot
                            began, by id: state, blocks (confirmed, distinct), puts (all that were taken),
                            repeats (of confirmed ones: index, same content?) and repeat_count, throttled
    GET  /sandbox/blocks    {"snapshot_id": "snap-..."}: the indices of the blocks that were written, or null
    GET  /sandbox/calls     the API calls so far: time, service, action, region, key (its first
                            four characters), has_token, status, code, seconds, arguments (no
                            secrets); calls of the auditor are left out, and PutSnapshotBlock and
                            GetSnapshotBlock are there once for each snapshot and outcome

**Stricter than moto**, as Amazon documents it: see `rules` (EC2), `images` (RegisterImage), `copying`
(CopyImage), `sharing` (permissions and deprecation of images), `ebs` (the EBS direct APIs, which are not
moto's at all), `identity` (STS and IAM), `gate` (who signs, when, and client tokens) and `network` (who
gets through to an instance). Not imitated: capacity, prices, the time that real machines take, and
eventual consistency where `hidden_seconds` does not.
"""
