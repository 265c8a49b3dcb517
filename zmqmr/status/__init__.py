"""The status port: what a coordinator is doing, to read and never to change."""
