"""Keeps a table in files up to date, until it is killed: ``follower.py ADDRESS TOPIC PLACE ENDS``.

ENDS is JSON, a list of ends by partition, to which it refreshes one after the other. It says when
it begins.
"""

from __future__ import annotations

import json
import sys

import ottla


def main() -> None:
    address, topic, place, ends = sys.argv[1:5]
    with (
        ottla.connect(address) as kafka,
        kafka.table(
            topic, key="text", value={"number": "int64"}, path=place, refresh=False
        ) as table,
    ):
        print("refreshing", flush=True)
        for end in json.loads(ends):
            table.refresh(end={topic: {int(one): at for one, at in end.items()}})


if __name__ == "__main__":
    main()
