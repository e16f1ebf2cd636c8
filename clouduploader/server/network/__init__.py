"""What a client meets: connections, TLS, the Unix socket, where a request comes from, and its body."""
