"""Bytes and files: inputs, codecs, sorting, runs, outputs, bundles. No sockets."""
