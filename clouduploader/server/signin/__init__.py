"""Sign-in on the page: by token or by OpenID Connect, and the sessions that follow."""
