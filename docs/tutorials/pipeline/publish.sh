#!/bin/sh
# publish.sh IMAGE NAME: make an AMI of an image, with a copy in another region; print the ids by region.
set -u
image=$1 name=$2 tries=5

while :; do
    clouduploader --quiet upload --method ebs-direct --name "$name" --copy-to eu-central-1 \
        --keep snapshot --json "$image" >answer.json
    code=$?
    tries=$((tries - 1))
    if [ $code -eq 0 ]; then
        jq -r '.data.images | to_entries[] | "\(.key) \(.value)"' answer.json
        exit 0
    elif [ $code -ne 75 ] || [ $tries -eq 0 ]; then
        jq -r '.error // .data.shortfalls' answer.json >&2
        exit $code
    fi
    sleep "${PAUSE:-60}" # busy, no network, or a copy that is missing: the same command goes on where it was
done
