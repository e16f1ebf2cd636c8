"""OpenStack in the sandbox: the real Keystone and Glance, of two regions, on SQLite.

They are installed from PyPI into an environment of their own, with a cloud that is ready in it: projects, users, an
application credential with the least rights. Each sandbox gets a copy.

What sandbox.json has besides:

    auth_url           the URL of Keystone
    regions            the names of the regions
    project_id, other_project_id
                       our project, and one to share with
    application_credential_id, application_credential_secret
                       a credential of ours with the least rights
    full_credential    another, with all that clouduploader can use: id and secret
    user               the name, password and project of the person who owns it
    stores             the directory with the content of images by region; each file has an image's id as its name

Control, besides what every sandbox has:

    GET  /sandbox/account   our project's images by region, as Glance shows them; what is stored, and what staged
    POST /sandbox/expire    all tokens that were used so far

Calls are named as the reference of the API has them, for example "PUT /v2/images/{image_id}/file".
"""
