"""Our worker beside OBS's own, each with OBS's server in front: how soon an upload is executed.

.venv/bin/python bench/worker.py [--rounds 20] [--slot-rounds 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2e.obs.obs_backend import EXECUTABLE, Backend

from clouduploader.store import spool

UPLOADER = """#!/bin/bash
echo "start $EPOCHREALTIME" > "PLACE/start$(<"$4")"
until [ -e "PLACE/go$(<"$4")" ]; do read -t 0.002 <> <(:); done
echo "end $EPOCHREALTIME" > "PLACE/end$(<"$4")"
"""
"""The program that both workers execute. Its target data are a word that names the files it writes."""
STALL_SECONDS = 15.0  # OBS's worker looks again after 10, if at all
IMAGE = b"image" * 200


class Site:
    """A backend with one of the workers."""

    def __init__(self, place, *, is_ours):
        self.name = "clouduploader worker" if is_ours else "bs_clouduploadworker"
        self._place = place
        bin_dir = place / "bin"
        bin_dir.mkdir(parents=True)
        program = bin_dir / "clouduploader"
        program.write_text(UPLOADER.replace("PLACE", str(place)))
        program.chmod(0o755)
        self.backend = Backend(place / "bs", path_dirs=[bin_dir], environment={}, has_worker=not is_ours)
        self.backend.start()
        self._worker = None
        if is_ours:
            self._worker = self._start_worker(program)
            self.backend.wait_until(self.backend.has_any_worker, "our worker is ready")
        self._count = 0

    def _start_worker(self, program):
        lock = self.backend.rundir / "bs_clouduploadworker.lock"
        (self._place / "clouduploader.conf").write_text(f"[worker]\nprogram = {program}\nobs_lock = {lock}\n")
        return subprocess.Popen(
            [EXECUTABLE, "--home", self._place, "--spool", self.backend.spool, "worker"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self):
        if self._worker:
            self._worker.terminate()
            self._worker.wait()
        self.backend.close()

    def submit(self, user):
        """Give it a job; return its word, and when the last byte of its image was sent."""
        self._count += 1
        word = str(self._count)
        job = self.backend.create(word.encode(), size=len(IMAGE), user=user)
        with self.backend.sending(job, len(IMAGE), IMAGE[:-1]) as connection:
            time.sleep(0.05)
            ended = time.time()
            connection.sendall(IMAGE[-1:])
            connection.recv(1000)
        return word, ended

    def release(self, *words):
        for word in words:
            (self._place / f"go{word}").touch()

    def stamp(self, kind, word, timeout_seconds=60.0):
        """When an upload started or ended; None if it does not in time."""
        path = self._place / f"{kind}{word}"
        deadline = time.monotonic() + timeout_seconds
        while not (path.exists() and path.read_text().endswith("\n")):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)
        return float(path.read_text().split()[1])


def after_put(site):
    """From the last byte of an image to the uploader's first line, while there is a slot."""
    word, ended = site.submit("tom")
    seconds = site.stamp("start", word) - ended
    site.release(word)
    site.stamp("end", word)
    time.sleep(0.2)
    return seconds


def after_slot(site, users):
    """From the end of an upload to the start of the one that waits for its slot."""
    running = [site.submit(user)[0] for user in users[:-1]]
    for word in running:
        site.stamp("start", word)
    waiting, _ = site.submit(users[-1])
    time.sleep(0.5)
    site.release(running[0])
    ended = site.stamp("end", running[0])
    started = site.stamp("start", waiting, STALL_SECONDS)
    site.release(*running[1:], waiting)
    if started is None:
        spool.Spool(site.backend.spool).ping_worker()
        site.stamp("start", waiting)
    for word in (*running, waiting):
        site.stamp("end", word)
    time.sleep(0.5)
    return float("inf") if started is None else started - ended


def show(title, sites, measure, rounds):
    found = {site.name: [] for site in sites}
    for _ in range(rounds):
        for site in sites:
            found[site.name].append(measure(site))
    for name, values in found.items():
        texts = [f"{1000 * value:10.0f}" for value in (statistics.median(values), min(values), max(values))]
        print(f"{title:40} {name:22}" + "".join(texts), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slot-rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}; inf: not within {STALL_SECONDS:.0f} s")
    print(f"{'ms':40} {'worker':22}{'median':>10}{'min':>10}{'max':>10}")
    with tempfile.TemporaryDirectory() as directory:
        sites = [Site(Path(directory) / str(number), is_ours=bool(number)) for number in range(2)]
        try:
            show("last byte of PUT to exec", sites, after_put, options.rounds)
            two, four = ["tom"] * 3, ["a", "b", "c", "d", "e"]
            show("slot of the same user freed to exec", sites, lambda site: after_slot(site, two), options.slot_rounds)
            show("last slot of all freed to exec", sites, lambda site: after_slot(site, four), options.slot_rounds)
        finally:
            for site in sites:
                site.close()


if __name__ == "__main__":
    main()
