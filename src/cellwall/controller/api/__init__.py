"""What the controller says to agents (the channel, over mutual TLS) and to people (REST, over a Unix socket)."""
