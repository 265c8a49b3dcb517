"""The coordinator: the scheduler with sockets and a clock."""
