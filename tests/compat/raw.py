"""What an unmodified TiKV client does with a cluster, each step checked. See compat.sh.

The wheel's scan is right within one region only, also against TiKV: so scans stay inside one, and
what lies in many regions is read by batch_get.

Arguments: addresses of placement, the program, the pid of a store that may be killed.
"""

import os
import signal
import subprocess
import sys
import time

from tikv_client import RawClient

ENDPOINTS, PROGRAM, VICTIM = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
# How long reads and writes may fail after a store was killed; far longer than they should.
PATIENCE = 30.0
RECORDS = 3000


def step(words):
    print(f"✔ {words}", flush=True)


def same(words, got, wanted):
    if got != wanted:
        got, wanted = (text if len(text := repr(value)) < 200 else text[:200] + "…" for value in (got, wanted))
        sys.exit(f"✘ {words}: got {got}, wanted {wanted}")


def eventually(action):
    """The client keeps the route to a store that is gone; an application connects again."""
    global client
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except Exception as error:  # the wheel has one kind of error
            if time.monotonic() > deadline:
                sys.exit(f"✘ still failing after {PATIENCE} s: {error}")
            time.sleep(0.1)
            client = RawClient.connect(ENDPOINTS)


def program(*arguments):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"✘ quorate {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def refused(words, action):
    try:
        action()
    except Exception as error:
        if words not in str(error):
            sys.exit(f"✘ refused without {words!r}: {error}")
        return
    sys.exit(f"✘ not refused: {words}")


client = RawClient.connect(ENDPOINTS)
step("connected")

client.put(b"compat/one", b"1")
same("get", client.get(b"compat/one"), b"1")
same("get by the program", program("kv", "get", "compat/one").strip(), "1")
program("kv", "put", "compat/two", "2")
same("get of what the program wrote", client.get(b"compat/two"), b"2")
same("get of nothing", client.get(b"compat/none"), None)
client.put(b"compat/empty", b"")
same("an empty value", client.get(b"compat/empty"), b"")
client.put(b"compat/\x00\xff", b"\x00\x01\xff")
same("bytes of all kinds", client.get(b"compat/\x00\xff"), b"\x00\x01\xff")
step("put and get, both ways")

records = {b"compat/many/%05d" % n: b"value of %d" % n for n in range(RECORDS)}
for start in range(0, RECORDS, 500):
    client.batch_put(dict(sorted(records.items())[start : start + 500]))
same("batch_get", dict(client.batch_get(list(records)[:200])), dict(list(records.items())[:200]))
program("region", "split", "compat/many/01000", "compat/many/02000")


def read(keys):
    """All of them that are there, from whichever regions."""
    found = {}
    for start in range(0, len(keys), 500):
        found.update(client.batch_get(keys[start : start + 500]))
    return found


same("batch_get from three regions, with routes from before", read(list(records)), records)
client.batch_put(dict(list(records.items())[900:1100]))
rows = client.scan(b"compat/many/01000", b"compat/many/02000", 10_000)
same("scan", dict(rows), {k: v for k, v in records.items() if b"/01000" <= k[11:] < b"/02000"})
keys = client.scan_keys(b"compat/many/00100", b"compat/many/00110", 100)
same("scan of keys", keys, [b"compat/many/%05d" % n for n in range(100, 110)])
same("a limit", len(client.scan(b"compat/many/01000", b"compat/many/02000", 150)), 150)
step("batches across regions that split meanwhile, and scans")

client.delete(b"compat/one")
same("get of what was deleted", client.get(b"compat/one"), None)
client.batch_delete([b"compat/many/%05d" % n for n in range(10)])
client.delete_range(b"compat/many/00010", b"compat/many/01500")
left = {key: value for key, value in records.items() if key >= b"compat/many/01500"}
same("what a range delete over two regions left", read(list(records)), left)
step("delete, batch_delete, delete_range")

refused("limit", lambda: client.put(b"compat/large", b"v" * (1024 * 1024 + 1)))
refused("empty key", lambda: client.put(b"", b"v"))
step("what is over a limit is refused in words")

os.kill(VICTIM, signal.SIGKILL)
for number in range(200):
    eventually(lambda number=number: client.put(b"compat/after/%03d" % number, b"%d" % number))
after = {b"compat/after/%03d" % n: b"%d" % n for n in range(200)}
same("reads after", eventually(lambda: read(list(after))), after)
same("old data", eventually(lambda: read(list(records))), left)
step("goes on after a store was killed; nothing is lost")
