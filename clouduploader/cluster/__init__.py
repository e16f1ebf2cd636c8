"""Uploads by many hosts: RabbitMQ carries the work, and a lease at the server decides who may do it.

`dispatch` is the side of the server, which alone has the spool; `host` is that of the hosts that upload. Between them
are messages with a job's number, an attempt's and the server's URL, and the routes of `server.api.cluster`.

A *host* has *slots*, in each of which it uploads one image at a time. A job is *published* to a queue; the host that
gets the message *claims* the job, and has a *lease* as long as its *beats* arrive. Each publication is an *attempt* of
its own, and only the newest attempt counts: a host that works on an older one ends its uploader at once.
"""
