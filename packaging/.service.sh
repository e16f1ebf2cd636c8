# Sourced by packaging/try, for the kinds that install a service: rpm and deb.

root=$base/root home=$root/etc/obs/cloudupload init=
cgroup=$(findmnt -n -t cgroup2 -o TARGET | head -1)/clouduploader-try

make_root() {
    # rabbitmq-server for the deb alone: the RPM's tree has no Celery that would do
    make_debian "debian-$kind" \
        "ca-certificates,curl,dbus,gpg,gpg-agent,iproute2,procps,python3,qemu-utils,rpm,systemd-sysv,xz-utils$([ $kind = rpm ] || echo ,rabbitmq-server)"
    rm -rf --one-file-system "$root"
    cp -a "$base/debian-$kind" "$root"
    [ $kind = rpm ] || return 0
    # what Debian lacks or has too old: the deb brings it along, the RPM relies on packages of openSUSE
    if [ ! -d "$base/requirements" ]; then
        local requirements
        requirements=$(python3 -c 'import configparser as c; s = c.ConfigParser(); s.read("setup.cfg")
print(s["options"]["install_requires"], *map(s["options.extras_require"].get, ("ec2uploadimg", "server")))')
        rm -rf "$base/new"
        # not of the virtual environment: its Python is the one that the RPM is built with, and that the tree has
        /usr/bin/python3 -m pip install -qq --root "$base/new" --break-system-packages --ignore-installed --root-user-action=ignore \
            --no-warn-script-location $requirements
        mv "$base/new" "$base/requirements"
    fi
    cp -a "$base/requirements/." "$root"
}

case $kind in
rpm)
    python=/usr/bin/python3 ec2uploadimg=/usr/local/bin/ec2uploadimg
    install_package() { inside sh -c 'rpm --initdb && rpm -i --nodeps /root/*.rpm'; }
    differences() { inside rpm -V --nodeps clouduploader; }
    update_package() { inside sh -c 'rpm -U --replacepkgs --nodeps /root/*.rpm'; }
    remove_package() { inside rpm -e --nodeps clouduploader; }
    ;;
deb)
    python=/usr/lib/clouduploader/bin/python ec2uploadimg=/usr/bin/ec2uploadimg
    install_package() { inside sh -c 'dpkg --install /root/*.deb' >/dev/null; }
    differences() { inside dpkg --verify clouduploader; }
    update_package() { install_package; }
    remove_package() { inside dpkg --remove clouduploader >/dev/null; }
    ;;
esac

boot() {
    mkdir -p "$cgroup"
    (
        echo $BASHPID >"$cgroup/cgroup.procs"
        exec nsenter --net="/proc/$(cat "$aws/namespaces.pid")/ns/net" \
            unshare --mount --pid --cgroup --uts --ipc --fork --kill-child sh -eu -c '
                mount --bind "$1" "$1"
                cd "$1"
                mount -t proc proc proc
                mount -t sysfs -o ro sysfs sys
                mount -t cgroup2 cgroup2 sys/fs/cgroup
                mount -t tmpfs -o mode=755 tmpfs run
                mount -t tmpfs -o mode=755 tmpfs dev
                for name in null zero full random urandom tty; do
                    touch "dev/$name"
                    mount --bind "/dev/$name" "dev/$name"
                done
                mkdir dev/pts dev/shm
                mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
                ln -s pts/ptmx dev/ptmx
                ln -s /proc/self/fd dev/fd
                pivot_root . .
                umount -l .
                exec chroot . env -i container=other /sbin/init' sh "$root"
    ) >>"$base/boot.log" 2>&1 &
    machine=$!
    wait_until 'init=$(pgrep -P $machine) && [ "$(inside systemctl is-system-running --wait 2>/dev/null)" = running ]'
}

inside() {  # COMMAND...
    nsenter --target "$init" --mount --pid --cgroup --uts --ipc --net env -i "${environment[@]}" \
        HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
environment=(AWS_ENDPOINT_URL=http://127.0.0.1:5000 AWS_ENDPOINT_URL_EBS=https://127.0.0.1:5443 AWS_CA_BUNDLE=/etc/aws.pem)

control() { curl -sS --fail --unix-socket "$aws/socket" "http://sandbox/sandbox/$1" "${@:2}"; }  # see clouduploader/sandbox

leftovers() {  # what is in the cloud beside images with a snapshot each
    control account | python3 -c 'import json, sys; found = json.load(sys.stdin)
print(sum(map(len, found.values())) - 2 * len(found["images"]))'
}

server=(--server http://127.0.0.1:5452)

submit() {  # METHOD
    inside clouduploader submit /srv/image.raw.xz --user tom --region us-east-1 --name "image-$EPOCHREALTIME" --method "$1" \
        "${server[@]}" "${@:2}" 2>>"$base/uploads.log"
}

submit_three() {  # one of each method, which take long, and one that has to wait: a user has two at once
    control helper -d '{"sftp_delay_seconds": 0.3}' >/dev/null
    control faults -d '{"action": "PutSnapshotBlock", "delay_seconds": 30}' >/dev/null
    for method in ec2uploadimg ebs-direct ebs-direct; do submit $method; done >/dev/null
    wait_until '[ "$(leftovers)" -gt 9 ]'
    is "three jobs" "scheduled uploading uploading" "$(column state 3)"
}

column() {  # NAME JOBS: of the newest jobs
    inside clouduploader list --limit "$2" |
        awk -F '\t' -v name="$1" 'NR == 1 { while ($++column != name); next } { print $column }' | paste -sd ' '
}

wait_until_idle() {
    control faults -d '[]' >/dev/null
    wait_until '[ "$(inside clouduploader list --running | wc -l)" = 1 ]'
}

say "building the $kind, starting the sandbox"
make_root
packaging/build "$kind" "$root/root"
start_sandbox
trap '[ -z "$init" ] || kill -KILL $init; kill $sandbox; wait; find "$cgroup" -depth -type d -exec rmdir {} +' EXIT
cp "$aws/sample.raw.xz" "$root/srv/image.raw.xz"
cp "$aws/ca.pem" "$root/etc/aws.pem"
# a network that is gone after shutdown.target, as it is with wicked or ifupdown
cat >"$root/etc/systemd/system/network.service" <<'END'
[Unit]
DefaultDependencies=no
Before=network.target network-online.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'ip link set lo up; ip route replace local default dev lo'
ExecStop=ip link set lo down
[Install]
WantedBy=network-online.target
END
systemctl --root="$root" --quiet enable network
boot

say "installing"
install_package
is "what differs from the package" "" "$(differences)"
is "the home and the spool" "drwxr-x--- obsrun drwx------ obsrun -rw------- obsrun -rw-r--r-- root drwxr-x--- obsrun" "$(
    inside stat -c '%A %U' /etc/obs/cloudupload /etc/obs/cloudupload/.aws /etc/obs/cloudupload/.aws/credentials \
        /etc/obs/cloudupload/clouduploader.conf /srv/obs/cloudupload | paste -sd ' ')"
[ $kind = rpm ] || is "what lacks of the clouds' libraries" "" "$(inside "$python" -c "$imports" 2>&1)"
cat "$aws/home/.aws/credentials" >"$home/.aws/credentials"
cat "$aws/home/.ec2utils.conf" >"$home/.ec2utils.conf"
sed -e "1s,.*,#!$python," -e "s,run_path('[^']*',run_path('$ec2uploadimg'," "$aws/bin/ec2uploadimg" \
    >"$root/usr/local/lib/ec2uploadimg"
chmod +x "$root/usr/local/lib/ec2uploadimg"
cat >"$home/clouduploader.conf" <<'END'
[worker]
pass_environment = AWS_ENDPOINT_URL AWS_ENDPOINT_URL_EBS AWS_CA_BUNDLE
[ec2]
ec2uploadimg = /usr/local/lib/ec2uploadimg
END
for unit in clouduploader clouduploader-host; do
    mkdir "$root/etc/systemd/system/$unit.service.d"
    printf '[Service]\nEnvironment=%s\n' "${environment[*]}" >"$root/etc/systemd/system/$unit.service.d/sandbox.conf"
done
inside systemctl daemon-reload
inside systemctl enable --now clouduploader
inside clouduploader account create tom >/dev/null
inside clouduploader account set tom external_id sandboxExternalId0000001
inside clouduploader account set tom arn arn:aws:iam::123456789012:role/obs-upload

say "uploading"
is "by ec2uploadimg" "*ami-*" "$(submit ec2uploadimg --wait | paste -sd ' ')"
is "by EBS direct" "*ami-*" "$(submit ebs-direct --wait | paste -sd ' ')"
is "left in the cloud" 0 "$(leftovers)"

say "restart, SIGKILL, stop and start, while uploads run"
submit_three
inside systemctl restart clouduploader
inside systemctl kill --kill-whom=main --signal=KILL clouduploader
wait_until 'inside systemctl is-active --quiet clouduploader'
inside systemctl stop clouduploader
is "while it is stopped" "scheduled uploading uploading" "$(column state 3)"
inside systemctl start clouduploader
wait_until_idle
is "their end" "succeeded succeeded succeeded" "$(column state 3)"

say "reboot, while uploads run"
submit_three
inside systemctl reboot
wait $machine 2>>"$base/boot.log" || :
boot
wait_until_idle
is "their end" "ami-* killed killed" "$(column details 3)"
is "left in the cloud" 0 "$(leftovers)"

say "loss of power, while uploads run"
submit_three
kill -KILL $init
wait $machine 2>>"$base/boot.log" || :
boot
wait_until_idle
is "their end" "ami-* the upload was interrupted* the upload was interrupted*" "$(column details 3)"
wait_until '[ "$(leftovers)" = 0 ]'  # by the service, beside

say "update, while uploads run"
submit_three
update_package
is "the settings" "ec2uploadimg = /usr/local/lib/ec2uploadimg" "$(tail -1 "$home/clouduploader.conf")"
wait_until_idle
is "their end" "succeeded succeeded succeeded" "$(column state 3)"

try_host() {
    server=()  # a job by http would come with the host's token
    printf made-up | install -m 600 /dev/stdin "$home/broker-password"
    inside clouduploader token create --user host --role worker | install -m 600 /dev/stdin "$home/token"
    inside chown obsrun: /etc/obs/cloudupload/{broker-password,token}
    inside rabbitmqctl --quiet add_user uploads <"$home/broker-password"
    inside rabbitmqctl --quiet set_permissions uploads '.*' '.*' '.*'
    cat >>"$home/clouduploader.conf" <<'END'
[cluster]
broker = amqp://uploads@127.0.0.1//
server = http://127.0.0.1:5452
slots = 1
lease_seconds = 10
beat_seconds = 1
END
    inside systemctl restart clouduploader
    inside systemctl enable --now clouduploader-host
    is "by the host" "*ami-*" "$(submit ebs-direct --wait | paste -sd ' ')"
    is "the host's uploads" succeeded "$(column state 1)"
    is "where they have been" "" "$(ls "$root/srv/obs/cloudupload/attempts")"

    control faults -d '{"action": "PutSnapshotBlock", "delay_seconds": 3}' >/dev/null
    submit ebs-direct >/dev/null
    wait_until '[ "$(leftovers)" -gt 0 ]'
    inside systemctl stop clouduploader-host  # drains it
    is "when it has stopped" "succeeded 0" "$(column state 1) $(inside systemctl show -P ExecMainStatus clouduploader-host)"

    submit ebs-direct >/dev/null
    inside systemctl start clouduploader-host
    wait_until '[ "$(leftovers)" -gt 0 ]'
    inside systemctl kill --signal=KILL clouduploader-host
    wait_until_idle
    is "after SIGKILL" "succeeded" "$(column state 1)"
    is "left in the cloud" 0 "$(leftovers)"
    inside systemctl disable --now clouduploader-host
    sed -i '/^\[cluster\]/,$d' "$home/clouduploader.conf"
    inside systemctl restart clouduploader
}
[ $kind = rpm ] || { say "a host of a cluster"; try_host; }

say "removal, while uploads run"
submit_three
remove_package
is "the service" inactive "$(inside systemctl is-active clouduploader || :)"
is "left in the cloud" 0 "$(leftovers)"
is "processes" "" "$(inside ps -u obsrun -o args=)"
say "what stays:"
(cd "$root" && find etc/obs srv/obs -not -path '*/done/*' -not -path '*/journal/*' | sort)
