import asyncio
import threading

from clouduploader.server import host_threads
from clouduploader.server.host_threads import HostThreads


def test_claims_that_wait_hinder_no_other_request():
    async def ask():
        threads, is_over = HostThreads(), threading.Event()
        claims = [asyncio.ensure_future(threads.claim(is_over.wait)) for _ in range(2 * host_threads.CLAIM_THREADS)]
        works = [asyncio.ensure_future(threads.work(is_over.wait)) for _ in range(host_threads.WORK_THREADS - 1)]
        await asyncio.sleep(0)
        assert await threads.work(lambda: "done") == "done"
        assert await asyncio.to_thread(lambda: "known") == "known"
        is_over.set()
        assert await asyncio.gather(*claims, *works) == [True] * (len(claims) + len(works))
        threads.close()

    asyncio.run(ask())
