"""The kernel's log, read record by record from /dev/kmsg."""

import os


def cursor():
    """The sequence number of the next record."""
    records = _records(0, last_only=True)
    return records[-1]["seq"] + 1 if records else 0


def read(since=0):
    """All records from ``since`` on: dicts with ``seq``, ``level``, ``seconds`` (since boot) and ``text``."""
    return _records(since)


def mark(text):
    """Write a line into the log; gives the sequence number to read from."""
    now = cursor()
    with open("/dev/kmsg", "w") as file:
        file.write(text)
    return now


def _records(since, last_only=False):
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    found = []
    try:
        while True:
            try:
                raw = os.read(handle, 16384)
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # records were overwritten while we read; go on with the oldest there is
            record = _parse(raw.decode("utf-8", "replace"))
            if last_only:
                found = [record]
            elif record["seq"] >= since:
                found.append(record)
    finally:
        os.close(handle)


def _parse(raw):
    head, _, text = raw.partition(";")
    priority, seq, microseconds = head.split(",")[:3]
    return {
        "seq": int(seq),
        "level": int(priority) & 7,
        "seconds": int(microseconds) / 1e6,
        "text": text.split("\n", 1)[0],
    }
