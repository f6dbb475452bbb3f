"""Workers, failures, stragglers and one committer: where a survey of 100 million pictures would be held up.

    python examples/scale_simulation.py
    python examples/scale_simulation.py --workers 64 256 1024 --seconds 5 --commit 0.1

A discrete-event simulation of the engine's own rules (units in a queue, a dead worker's unit is done again, slow
units are repeated once nothing else is to be done, results wait for one committer, who takes all that wait at
once). All times are seconds of simulated time; the defaults are measured figures of docs/scale.md.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """``seconds`` a unit takes (lognormal, ``spread``), ``slow`` of them ten times as long; a worker dies every
    ``life`` seconds and its replacement needs ``start``; a commit of n units costs ``commit + n * each``.
    """

    units: int = 20_000
    workers: int = 64
    seconds: float = 30.0
    spread: float = 0.2
    slow: float = 0.001
    life: float = 6 * 3600.0
    start: float = 60.0
    commit: float = 0.05
    each: float = 0.05
    together: bool = True
    repeat: bool = True
    seed: int = 0


@dataclass
class Outcome:
    """What happened; ``busy`` and ``committing`` are shares of the time."""

    seconds: float
    busy: float
    committing: float
    deaths: int
    repeated: int
    committed: Counter[int]
    longest_queue: int


def simulate(given: Setting) -> Outcome:
    """One run, from the first unit to the last commit."""
    draw = random.Random(given.seed)
    queue = deque(range(given.units))
    events: list[tuple[float, int, str, int, int]] = []
    number = itertools.count()
    at: dict[int, tuple[int, float]] = {}  # what each worker is at, since when
    idle: set[int] = set()
    waiting: deque[int] = deque()
    done: set[int] = set()
    committed: Counter[int] = Counter()
    committing: list[int] = []
    work = commits = now = 0.0
    deaths = repeated = longest = 0

    def push(when: float, kind: str, worker: int = -1, unit: int = -1) -> None:
        heapq.heappush(events, (when, next(number), kind, worker, unit))

    def hand_out(worker: int) -> None:
        nonlocal repeated, work
        while queue and queue[0] in done:
            queue.popleft()
        if queue:
            unit = queue.popleft()
        else:
            copies = Counter(unit for unit, _ in at.values())
            late = [
                (since, unit)
                for unit, since in at.values()
                if unit not in done and now - since > 2 * given.seconds and copies[unit] < 3
            ]
            if not late or not given.repeat:
                idle.add(worker)
                return
            unit = min(late)[1]
            repeated += 1
        takes = given.seconds * draw.lognormvariate(0.0, given.spread)
        takes *= 10 if draw.random() < given.slow else 1
        at[worker] = (unit, now)
        dies = draw.expovariate(1 / given.life)
        work += min(takes, dies)
        push(now + min(takes, dies), "died" if dies < takes else "finished", worker, unit)

    def commit() -> None:
        nonlocal committing, commits
        if committing or not waiting:
            return
        count = len(waiting) if given.together else 1
        committing = [waiting.popleft() for _ in range(count)]
        cost = given.commit + given.each * count
        commits += cost
        push(now + cost, "committed")

    for worker in range(given.workers):
        hand_out(worker)
    push(given.seconds, "look")
    while len(committed) < given.units:
        now, _, kind, worker, unit = heapq.heappop(events)
        if kind == "committed":
            committed.update(committing)
            committing = []
        elif kind == "died":
            deaths += 1
            del at[worker]
            queue.appendleft(unit)
            push(now + given.start, "replaced", worker)
        elif kind == "finished":
            del at[worker]
            if unit not in done:
                done.add(unit)
                waiting.append(unit)
            hand_out(worker)
        elif kind == "replaced":
            hand_out(worker)
        elif kind == "look":
            for one in sorted(idle):
                idle.discard(one)
                hand_out(one)
            push(now + given.seconds / 4, "look")
        longest = max(longest, len(waiting))
        commit()
    share = min(1.0, work / (given.workers * now))
    return Outcome(now, share, commits / now, deaths, repeated, committed, longest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain = Setting()
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 64, 128, 256, 512, 1024])
    parser.add_argument("--units", type=int, default=plain.units)
    parser.add_argument("--seconds", type=float, default=plain.seconds)
    parser.add_argument("--commit", type=float, default=plain.commit)
    parser.add_argument("--each", type=float, default=plain.each)
    given = parser.parse_args()
    print(f"{given.units} units of {given.seconds:g} s; a commit takes {given.commit:g} + {given.each:g} s a unit")
    names = ("hours", "ideal", "busy", "committer", "deaths", "repeated", "queue")
    print(" workers" + "".join(f"{name:>10}" for name in names))
    for workers in given.workers:
        setting = Setting(
            units=given.units, workers=workers, seconds=given.seconds, commit=given.commit, each=given.each
        )
        found = simulate(setting)
        assert all(count == 1 for count in found.committed.values()), "a unit was committed twice"
        ideal = given.units * given.seconds / workers / 3600
        row = (f"{found.seconds / 3600:.2f}", f"{ideal:.2f}", f"{found.busy:.0%}", f"{found.committing:.0%}")
        row += (str(found.deaths), str(found.repeated), str(found.longest_queue))
        print(f"{workers:>8}" + "".join(f"{cell:>10}" for cell in row))
    print(
        f"One committer keeps up to about {given.seconds / given.each:.0f} workers (all that wait go in one commit)."
    )


if __name__ == "__main__":
    main()
