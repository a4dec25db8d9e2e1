#!/usr/bin/env python3
"""SIGKILLs at random moments of job after job: every job ends, its artifact is byte-identical to one made in peace, and
no task is done twice. Of the server and two workers, on SQLite and a blob folder; with --shared of two servers of which
one leads, two workers and PostgreSQL, with blobs in S3 (moto's server, which stays).
usage: scripts/bars/kills.py [--shared] [KILLS] [SECONDS]   (default 500, no end; LWQ_SEED=N for other moments;
LWQ_POSTGRES=SHARE kills it that much more rarely than the others: a takeover needs it for 12 s)"""
import os
import random
import sys
import threading
import time

import service

BETWEEN = (0.5, 4.0)  # seconds from one kill to the next
# A server that stays away for longer than a term lets the other one take over.
AWAY, AWAY_LONG, LONG = (0.0, 1.0), (14.0, 18.0), 0.3


def main():
    arguments = sys.argv[1:]
    shared = "--shared" in arguments
    numbers = [int(a) for a in arguments if a != "--shared"]
    wanted = numbers[0] if numbers else 500
    seconds = numbers[1] if len(numbers) > 1 else float("inf")
    # Taken out of the environment: lwqctl takes variables of such names for its flags.
    seed = int(os.environ.pop("LWQ_SEED", "1"))
    draws = random.Random(seed)
    rarely = float(os.environ.pop("LWQ_POSTGRES", "1"))
    target = service.Service(2, shared, ["--lease-ttl", "10", "--heartbeat", "2"])
    peace, _ = target.run_job("in-peace", 60)
    start = time.time()

    def strike():
        while target.num_kills() < wanted and time.time() - start < seconds:
            time.sleep(draws.uniform(*BETWEEN))
            weights = [rarely if p is target.postgres else 1 for p in target.everybody]
            victim = draws.choices(target.everybody, weights)[0]
            long_away = shared and victim in target.servers and draws.random() < LONG
            wait = draws.uniform(*(AWAY_LONG if long_away else AWAY))
            if victim.is_up():
                victim.kill(wait)

    killer = threading.Thread(target=strike, daemon=True)
    killer.start()
    jobs, differ, twice = 0, 0, 0
    while killer.is_alive():
        jobs += 1
        digests, done = target.run_job(f"j{jobs}", 1000)
        differ += digests != peace
        twice += sum(1 for count in done.values() if count > 1)
    kills = ", ".join(f"{p.name} {p.kills}" for p in target.everybody)
    others = f"; the other server took over {target.num_takeovers()} times" if shared else ""
    others += "".join(f"; {p.name} ended by itself {p.ends} times" for p in target.everybody if p.ends)
    print(f"{target.num_kills()} kills ({kills}) in {time.time() - start:.0f} s, seed {seed}: {jobs} jobs ended; artifacts "
          f"that differ: {differ}; tasks done twice: {twice}{others}")
    sys.exit(1 if differ or twice or not peace or target.num_kills() == 0 else 0)


if __name__ == "__main__":
    main()
