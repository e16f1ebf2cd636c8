"""An emulated AWS: moto, the EBS direct APIs, and the ssh server of all helper instances, in one process.

sandbox.json has these of it, and those of the package above:

    endpoint           http://127.0.0.1:5000, also AWS_ENDPOINT_URL
    ebs_endpoint       https://127.0.0.1:5443, also AWS_ENDPOINT_URL_EBS: the EBS direct APIs; localhost
                       is a name of its certificate too, 127.0.0.2 leads to it and is none
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
    auditor            the same of a user with all rights: what `aws` and boto3 use in there
    volumes            a directory: VOLUME-ID.raw and SNAPSHOT-ID.raw, sparse, what is on the disks
    wait_factor        what ec2uploadimg's waiting times are multiplied by

`ec2uploadimg` on PATH is the real one, with its `time.sleep` shortened by `wait_factor`.

**Control**, also at the endpoint, as that of the package above and besides:

    POST /sandbox/faults    rate: the error is Amazon's for throttling.
                            For StartSnapshot, PutSnapshotBlock, CompleteSnapshot, ListSnapshotBlocks and
                            GetSnapshotBlock also:
                              reason:         of the answer, beside its code
                              by: "account"   whose rate it is (default: "snapshot", each its own)
                              stall:          no answer until the client hangs up, and
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
    POST /sandbox/clock     the Timeout of pending snapshots goes by it
    POST /sandbox/expire    all temporary credentials expire now; with {"life_seconds": 5} those that
                            are made later end after so long, and say so (null: as asked for)
    POST /sandbox/expire-snapshots  all snapshots that wait for blocks are cancelled: in the state error,
                            with {"gone": true} not there any more
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
    GET  /sandbox/account   what is in the account beyond what the sandbox made itself; lists of
                            objects with id and region: instances, volumes, key_pairs,
                            security_groups, vpcs, subnets, gateways, route_tables, snapshots,
                            images (with all that was registered)
    GET  /sandbox/ebs       connections: open, peak, total; calls: by action and code ("ok", "dropped" for
                            what a fault left without an answer) how many; snapshots that StartSnapshot
                            began, by id: state, blocks (confirmed, distinct), puts (all that were taken),
                            repeats (of confirmed ones: index, same content?) and repeat_count, throttled
    GET  /sandbox/blocks    {"snapshot_id": "snap-..."}: the indices of the blocks that were written, or null
    GET  /sandbox/calls     besides: region, key (its first four characters), has_token, arguments (no secrets);
                            calls of the auditor are left out, and PutSnapshotBlock and GetSnapshotBlock
                            are there once for each snapshot and outcome

**Stricter than moto**, as Amazon documents it: see `rules` (EC2), `images` (RegisterImage), `copy_image`
(CopyImage), `sharing` (permissions and deprecation of images), `ebs` (the EBS direct APIs, which are not
moto's at all), `identity` (STS and IAM), `moto_gate` (signatures: key, time; client tokens) and `network` (which
connections get through to an instance). Not imitated: capacity, prices, the time that real machines take, and
eventual consistency where `hidden_seconds` does not.
"""
