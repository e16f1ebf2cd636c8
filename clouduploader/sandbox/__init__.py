"""A private AWS on this machine, for trying and for testing.

`clouduploader sandbox [-- COMMAND...]` runs a shell or a command in new user, network, mount and
PID namespaces. In there the loopback owns every IPv4 address, so nothing leaves the machine, and
the address of a made-up instance leads to a server of ours. No root is needed.

Processes: `host` (the command itself) starts `init` in the namespaces; `init` starts `server`
(moto and the ssh server of all helper instances, one process) and then the command. When the
command ends, `init` ends, and with it everything in there. The command sees itself as root.

One directory holds all of it (see `layout`), sandbox.json in it describes it, and the environment
variable CLOUDUPLOADER_SANDBOX names it:

    endpoint           http://127.0.0.1:5000, also AWS_ENDPOINT_URL
    account_id         the account that the images go to
    regions            those with a helper AMI in home/.ec2utils.conf; the first is `region`
    region
    role_arn           the customer's role; with external_id the OBS user may assume it
    role_name
    external_id
    vpc_id, subnet_id  of `region`, for uploads with a vpc_subnet_id
    helper_amis        by region
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

    POST /sandbox/faults    {"action": "CreateVolume"} and any of
                              nth: 2          only this call, counted from now on (default: every)
                              code, message, status: the answer instead of doing it
                              delay_seconds:  before it is done
                              lose_answer:    true: do it, then hang up
                            or a list of such; replaces what was there. [] ends all faults.
    POST /sandbox/expire    all temporary credentials expire now
    POST /sandbox/clock     {"offset_seconds": 3600}: how far AWS's clock is ahead of this machine's
    POST /sandbox/policy    the policy document of the role, or null for ec2:*
    POST /sandbox/pace      {"snapshot_seconds": 3}: how long a snapshot stays pending
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
    GET  /sandbox/calls     the API calls so far: time, service, action, region, key (its first
                            four characters), has_token, status, code, seconds, arguments (no
                            secrets); calls of the auditor are left out

**Stricter than moto**, as Amazon documents it: see `rules` (EC2), `images` (RegisterImage), `identity`
(STS and IAM), `gate` (who signs, when, and client tokens) and `network` (who gets through to an
instance). Not imitated: capacity, eventual consistency, prices, and the time that real machines take.
"""
