"""Run mrjob jobs over ZeroMQ: many times faster than Hadoop Streaming, with the same answer."""

__version__ = "0.1.0"
