"""The thin client: mrjob's runner class for `-r zeromq`."""
