"""Cut each visitor's page views into sessions: a pause of 30 minutes starts a new one.

Shows SORT_VALUES (a secondary sort): the reducer gets a key's values in order, so it needs to
remember one session and never the whole history of a visitor. Values are sorted as the text they
are encoded to; a value that starts with an ISO time therefore comes in time order.

Input lines: time, visitor, page.

    zmqmr-run examples/sessions.py examples/data/visits.txt
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from mrjob.job import MRJob

Visit = tuple[str, str]  # time, page


class Sessions(MRJob):
    SORT_VALUES = True

    def configure_args(self) -> None:
        super().configure_args()
        self.add_passthru_arg(
            "--pause", type=int, default=30, metavar="MINUTES", help="a longer pause ends a session"
        )

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, Visit]]:
        time, visitor, page = line.split()
        yield visitor, (time, page)

    def reducer(self, visitor: str, visits: Iterable[Visit]) -> Iterator[tuple[str, list[str]]]:
        pause = timedelta(minutes=self.options.pause)
        pages: list[str] = []
        last = datetime.max
        for time, page in visits:
            now = datetime.fromisoformat(time)
            if pages and now - last > pause:
                yield visitor, pages
                pages = []
            pages.append(page)
            last = now
        yield visitor, pages


if __name__ == "__main__":
    Sessions.run()
