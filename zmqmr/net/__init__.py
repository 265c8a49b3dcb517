"""The only place where sockets are made."""
