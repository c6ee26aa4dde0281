"""Which scorer predicts the measured effect of running a block twice?

    python scripts/bench_scorers.py                    # the two demo models
    python scripts/bench_scorers.py --prompts 50 --draws 5

For each demo model: the true gain of every block (accuracy on `--documents` questions of
the `select` split, answered by the most likely of the ten cups, minus the base's), then for
every scorer, on `--prompts` unlabelled prompts of the `calibrate` split:

  first      its first block and that block's true gain
  regret     gain of the best block minus gain of its first block
  hit@4      whether one of its first four blocks is the truly best or within 0.01 of its gain
  planted    place of the planted block 4:8, and layers between it and the first block
  rho        Spearman correlation of score and gain over the blocks it ranked, n of them

`contrastive` compares reasoning with general prompts, so it runs on the default set.
Two models are two models: this shows, it does not prove.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from surgeon.block import Block, all_blocks
from surgeon.checkpoint.store import Checkpoint
from surgeon.models import load_tokenizer
from surgeon.probing.engine import probe
from surgeon.probing.plans import run_candidates
from surgeon.probing.prompts import Prompts, load_prompts
from surgeon.probing.subject import open_model
from surgeon.score import SCORERS
from surgeon.tasks import find_task
from surgeon.tasks.documents import documents

DEMO = Path(__file__).parent.parent / "surgeon" / "demo"
PLANTED = Block(4, 8)


@torch.no_grad()
def true_gains(folder: Path, blocks: list[Block], count: int) -> tuple[float, dict[Block, float]]:
    """Accuracy of the base, and the gain of each block run twice."""
    asked = documents(find_task("cups"), "select")[:count]
    tokenizer = load_tokenizer(folder)
    ids = [tokenizer(document.text)["input_ids"] for document in asked]
    answers = [[tokenizer(f" {c}")["input_ids"][0] for c in d.choices] for d in asked]
    gold = torch.tensor([document.gold for document in asked])
    subject = open_model(Checkpoint.open(folder), ids, "cpu", "float32")
    finals = run_candidates(subject.layers, subject.batches, blocks)

    def accuracy(states: torch.Tensor) -> float:
        logits = subject.runner.logits(states)
        return float((logits.gather(1, torch.tensor(answers)).argmax(1) == gold).float().mean())

    base = accuracy(finals.base)
    gains = [accuracy(states) - base for states in finals.candidates]
    return base, dict(zip(blocks, gains, strict=True))


def study(kind: str, sizes: tuple[int, ...], args: argparse.Namespace) -> None:
    folder = DEMO / kind
    depth = Checkpoint.open(folder).depth
    base, gains = true_gains(folder, all_blocks(depth, sizes), args.documents)
    order = sorted(gains, key=lambda block: -gains[block])
    top = ", ".join(f"{block} {gains[block]:+.3f}" for block in order[:4])
    print(f"\n{kind}: base {base:.3f}; measured best {top}; {PLANTED} {gains[PLANTED]:+.3f}")
    print(
        f"{'scorer':13} {'draw':>4} {'first':>6} {'gain':>7} {'regret':>7} {'hit@4':>5} "
        f"{'place of 4:8':>13} {'layers':>6} {'rho':>6} {'n':>4}  score"
    )
    for key in SCORERS:
        for draw in range(args.draws):
            prompts = load_prompts("task:cups", limit=args.prompts, seed=draw)
            if key == "contrastive":
                prompts = load_prompts("default")
            row(key, draw, folder, prompts, sizes, gains, order[0])


def row(
    key: str,
    draw: int,
    folder: Path,
    prompts: Prompts,
    sizes: tuple[int, ...],
    gains: dict[Block, float],
    best: Block,
) -> None:
    """One line of the table."""
    found = probe(folder, prompts, scorers=[key], sizes=sizes, dtype="float32", seed=draw)
    ranking = found.ranking(key)
    if ranking.best is None:
        print(f"{key:13} {draw:>4} none: {ranking.unranked[0].reason}")
        return
    first = ranking.best.block
    scores = [entry.score for entry in ranking.entries]
    truth = [gains[entry.block] for entry in ranking.entries]
    rho = spearmanr(scores, truth).statistic if len(scores) > 2 else np.nan
    hit = any(gains[e.block] >= gains[best] - 0.01 for e in ranking.entries[:4])
    place = ranking.position(PLANTED)
    print(
        f"{key:13} {draw:>4} {first!s:>6} {gains[first]:>+7.3f} {gains[best] - gains[first]:>7.3f} "
        f"{'yes' if hit else 'no':>5} {place or 'unranked':>13} {first.distance(PLANTED):>6} "
        f"{rho:>+6.2f} {len(scores):>4}  {ranking.best.score:.3g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["planted", "control"])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--sizes", nargs="+", type=int, default=[3, 4, 5])
    args = parser.parse_args()
    for kind in args.models:
        study(kind, tuple(args.sizes), args)


if __name__ == "__main__":
    main()
