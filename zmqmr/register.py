"""`import zmqmr.register` in a job file makes `-r zeromq` known where the start-up hook is not wanted.

It may come before or after the import of mrjob.
"""

from zmqmr.hook import install

install()
