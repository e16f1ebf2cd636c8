"""The users' roles: whom they trust and what they allow."""
