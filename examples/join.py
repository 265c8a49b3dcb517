"""Join two inputs: each order with the name of its customer.

Shows how a mapper knows which input a line is from, and how SORT_VALUES lets the one customer come
before the many orders, so that the reducer holds a single name in memory.

Input lines, separated by tabs: customers are id, name; orders are order, customer's id, amount.

    zmqmr-run examples/join.py examples/data/customers.tsv examples/data/orders.tsv
"""

import os
from collections.abc import Iterable, Iterator

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob

CUSTOMER, ORDER = 0, 1  # in the order in which the reducer is to see them
Record = tuple[int, str, int]  # kind; name or order; amount in cents


class Join(MRJob):
    SORT_VALUES = True

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, Record]]:
        fields = line.split("\t")
        if os.path.basename(jobconf_from_env("mapreduce.map.input.file")) == "customers.tsv":
            customer, name = fields
            yield customer, (CUSTOMER, name, 0)
        else:
            order, customer, amount = fields
            yield customer, (ORDER, order, round(float(amount) * 100))

    def reducer(
        self, customer: str, records: Iterable[Record]
    ) -> Iterator[tuple[str, tuple[str | None, int]]]:
        name = None
        for kind, text, cents in records:
            if kind == CUSTOMER:
                name = text
                continue
            if name is None:
                self.increment_counter("orders", "of an unknown customer")
            yield text, (name, cents)


if __name__ == "__main__":
    Join.run()
