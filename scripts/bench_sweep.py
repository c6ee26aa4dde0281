#!/usr/bin/env python3
"""What a sweep costs beside the naive loop, and what a race finds with how much of it.

    python scripts/bench_sweep.py                       # all parts, some minutes
    python scripts/bench_sweep.py --parts cost grid     # only these

cost      every block of sizes 3 to 5 of the planted demo model on --documents documents of
          `cups`: by lm-eval's `HFLM` on each plan alone; the same with the base run again
          before every plan; by the sweep's engine with shared layers; and as the sweep runs,
          with all choices of a document in one row. Each in a process of its own, the same
          number of rows per forward; layer forwards and tokens counted by hooks on the layers.
grid      the whole grid on 500 documents, from a cold process, and its memory beside --memory.
race      on both demo models, 20 orders of the documents: share of the grid's evaluations,
          winner, and what it falls short of the best on all 1,000 documents; without a
          probe, and with the probe's ranking on the bets.
null      simulated candidates that are all equal to the base: how often a race names a
          winner, and how often the best of a close field is dropped.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from bench_check import counted

from surgeon.hub import DEMO
from surgeon.sweeping.moves import Candidate, grid

DEPTH, SIZES = 12, (3, 4, 5)
MODES = {
    "HFLM, each plan alone": "alone",
    "HFLM, base again for each plan": "pairs",
    "engine, shared layers": "shared",
    "sweep: shared and packed": "packed",
}


def plans():
    """The base and every block."""
    return {str(c): c.plan(DEPTH) for c in (Candidate(), *grid(DEPTH, SIZES))}


def work(mode, documents, batch):
    """Score everything one way; returns counts, time and answers."""
    from surgeon.evals.backends import EngineBackend, PlainBackend
    from surgeon.evals.harness import build, lm_of, load_tasks
    from surgeon.models import load_model, load_tokenizer, plan_view

    task = load_tasks(["cups"], "select", offline=True)[0]
    prompts = build(task, task.order(0)[:documents])
    model, tokenizer = (
        load_model(DEMO / "planted", dtype="float32"),
        load_tokenizer(DEMO / "planted"),
    )
    tally, found = {"forwards": 0, "tokens": 0}, {}
    counted(model, tally)
    started = time.monotonic()
    if mode in ("alone", "pairs"):
        for name, plan in plans().items():
            todo = {name: plan}
            if mode == "pairs" and name != "base":
                todo = {"base": plans()["base"], **todo}
            for each, one in todo.items():
                backend = PlainBackend(lm_of(plan_view(model, one), tokenizer, batch))
                found |= backend.rows(prompts, {each: one})
    else:
        backend = EngineBackend(model, tokenizer, batch_size=batch, pack=mode == "packed")
        tally.update(forwards=0, tokens=0)
        found = backend.rows(prompts, plans())
    seconds = time.monotonic() - started
    answers = {n: [[r.chosen, r.gold_loglikelihood] for r in rows] for n, rows in found.items()}
    return {**tally, "seconds": seconds, "answers": answers}


def cost(options):
    """The first table."""
    found = {}
    for name, mode in MODES.items():
        command = [
            sys.executable, __file__, "--work", mode, f"--documents={options.documents}",
            f"--batch={options.batch}",
        ]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    naive, pairs, *_ = found.values()
    print(f"\nbase and 27 blocks, {options.documents} documents, {options.batch} rows a forward")
    print("| way | layer forwards | of alone | of pairs | layer-tokens | of alone | seconds "
          "| of alone | of pairs | flipped | max abs dLL |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, each in found.items():
        both = [
            (a, b)
            for plan, rows in each["answers"].items()
            for a, b in zip(rows, naive["answers"][plan], strict=True)
        ]
        flipped = sum(a[0] != b[0] for a, b in both)
        worst = max(abs(a[1] - b[1]) for a, b in both)
        print(
            f"| {name} | {each['forwards']:,} | {each['forwards'] / naive['forwards']:.2f} "
            f"| {each['forwards'] / pairs['forwards']:.2f} | {each['tokens']:,} "
            f"| {each['tokens'] / naive['tokens']:.2f} | {each['seconds']:.1f} "
            f"| {each['seconds'] / naive['seconds']:.2f} "
            f"| {each['seconds'] / pairs['seconds']:.2f} "
            f"| {flipped}/{len(both)} | {worst:.0e} |"
        )


GRID = """
import resource, sys, time
from surgeon.hub import DEMO
from surgeon.sweeping.sweep import sweep
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sweep(DEMO / "planted", ["cups"], sizes=[4], documents=2, memory=2**20)
before, started = peak(), time.monotonic()
found = sweep(DEMO / "planted", ["cups"], documents=500, memory=int(sys.argv[1]) * 2**20)
print(f"{time.monotonic() - started:.1f} {peak() - before:.0f} {found.winner}")
"""


def whole_grid():
    """Time and memory of the whole grid, with several budgets."""
    print(
        "\n27 blocks and the base on 500 documents\n| --memory MiB | seconds | memory grew by MiB |"
    )
    print("|--:|--:|--:|")
    for budget in (16, 64, 1024):
        command = [sys.executable, "-c", GRID, str(budget)]
        seconds, grown, winner = subprocess.check_output(command, text=True).split()
        assert winner == "4:8"
        print(f"| {budget} | {seconds} | {grown} |")


def race(options):
    """Races over orders of the documents."""
    from surgeon.probing.engine import probe
    from surgeon.probing.prompts import load_prompts
    from surgeon.sweeping.sweep import sweep

    print(
        "\n| model | bets | share of the grid | most | winners | short of the best | named winner |"
    )
    print("|---|---|--:|--:|---|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("planted", "control"):
            model, ledger = DEMO / name, Path(folder) / f"{name}.jsonl"
            truth = sweep(model, ["cups"], documents=1000, ledger=ledger)
            rankings = probe(model, load_prompts("task:cups", limit=100)).rankings
            for bets, against in (("equal", ()), ("from the probe", rankings)):
                shares, firsts, short, named = [], Counter(), [], 0
                for seed in range(options.seeds):
                    found = sweep(
                        model, ["cups"], race=True, seed=seed, ledger=ledger, against=against,
                        documents=500,
                    )  # fmt: skip
                    shares.append(found.race.spent / found.race.full)
                    named += found.winner is not None
                    firsts[found.winner or "none"] += 1
                    if found.winner:
                        best = truth.effects[0].difference
                        short.append(best - truth.effect(found.winner).difference)
                winners = ", ".join(f"{k} {v}" for k, v in firsts.most_common())
                print(
                    f"| {name} | {bets} | {np.mean(shares):.1%} | {max(shares):.1%} | {winners} "
                    f"| {max(short, default=0):.3f} | {named}/{options.seeds} |"
                )


def null(options):
    """Races of candidates that do not differ from the base, and of a close field."""
    from surgeon.evals.stream import chunks
    from surgeon.sweeping.effects import Differences
    from surgeon.sweeping.race import Race

    def one(rng, means, shared, documents=500):
        luck, own = rng.random(documents), rng.random((len(means), documents))
        together = rng.random((len(means), documents)) < shared
        scores = (np.where(together, luck, own) < np.array(means)[:, None]).astype(float)
        count = len(means) - 1
        contest = Race([4] * count, alpha=0.05, margin=0.02)
        bounds = Differences(count, 0.05)
        for chunk in chunks(list(range(documents)), first=16, growth=8):
            live = list(contest.live)
            base, part = scores[0, chunk], scores[1:][np.ix_(live, chunk)]
            bounds.add(live, base, part, np.zeros(len(chunk)), np.zeros_like(part))
            contest.add(base, part)
            if not contest.live:
                break
        leader = contest.leader()
        return leader is not None and bounds.lower[leader.at] > 0, contest.live

    print(f"\n| simulated field, {options.races} races | share | promised |\n|---|--:|--:|")
    for shared in (0.5, 0.9):
        named = lost = 0
        for seed in range(options.races):
            rng = np.random.default_rng([seed, int(10 * shared)])
            named += one(rng, [0.66] * 28, shared)[0]
            close = [0.5, 0.60] + [0.58] * 10 + [0.5] * 10
            lost += 0 not in one(rng, close, shared)[1]
        print(f"| 27 equal to the base ({shared:.0%} of luck shared): winner named "
              f"| {named / options.races:.1%} | <= 5% |")  # fmt: skip
        print(f"| best of 21 close ones ({shared:.0%} shared): dropped "
              f"| {lost / options.races:.1%} | <= 3.3% |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["cost", "grid", "race", "null"])
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64, help="rows per forward, in every mode")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.documents, options.batch)))
        return
    for name, part in (
        ("cost", lambda: cost(options)),
        ("grid", whole_grid),
        ("race", lambda: race(options)),
        ("null", lambda: null(options)),
    ):
        if name in options.parts:
            part()


if __name__ == "__main__":
    main()
