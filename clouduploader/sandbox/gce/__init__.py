"""Google's cloud in a sandbox: one project with a bucket, and a service account that may upload.

What is in the bucket is kept by gcp-storage-emulator, of another project; `storage` stands before it, and adds what it
lacks: who may do what, and the rules of resumable uploads. Compute Engine (`compute`), the token service and Resource
Manager (`identity`) are ours, after the documentation: there are none that could be had.

sandbox.json has besides:

    api_url            as the setting of that name
    project, bucket    what there is
    service_account    its e-mail address
    credentials        its JSON key

Control (see `clouduploader.sandbox`):

    GET  /sandbox/account   what is in there: objects, sessions, images with their policies
    GET  /sandbox/image     {"name": ...}: the path of a file with the raw disk of an image
    POST /sandbox/rights    {"bucket": [...], "project": [...]}: the permissions of the service account
    POST /sandbox/expire    all tokens that there are
    POST /sandbox/pace      {"image_seconds": 0}: how long it takes to make an image
    POST /sandbox/quota     {"images": 10}: how many images there may be
"""
