"""One agent a host, one executor a job, one process an attempt."""
