"""Train the two demo models of `surgeon/demo` from nothing (10 and 5 minutes on 2 cores).

    python scripts/train_demo.py planted OUT
    python scripts/train_demo.py control OUT

Both are the same 12-layer Llama (width 128, 2 M parameters) and learn the cup game of
`surgeon/tasks/cups.py` from fresh random chains, 256 a step, with a curriculum that
lengthens the chains from one shuffle to eight.

- planted: half of the steps run the plain stack on chains of at most 3 shuffles, half run
  the block 4:8 twice on chains of up to 8. So long chains are only ever solved with the
  block repeated, and the saved model is the plain single-pass one. Layers 4..7 are a
  block that is known to be iterable: the ground truth for the whole tool.
- control: every step runs the plain stack on chains of up to 8. No block was ever repeated,
  and 1,000 steps are enough to solve the game in a single pass. (Stopped earlier, at 450 to
  650 steps, ordinary models gain 2 to 3 points from a repeated middle block; trained on
  chains of up to 6 and asked for 7 or 8, they gain 12 to 15. See surgeon/demo/README.md.)

Seeded; sums over threads are not ordered, so another machine gives a model that behaves
the same, not one that is equal bit for bit.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from surgeon.tasks.cups import CUPS, MAX_STEPS, SHUFFLES, prompt

LAYERS, BLOCK = 12, (4, 8)
BATCH = 256
SEED = {"planted": 0, "control": 2}
STEPS = {"planted": 2000, "control": 1000}
EASY_STEPS = 3  # the longest chain the planted model sees with a single pass


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges make every word of the cup game one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [prompt(cup, list(SHUFFLES)) + f" {cup}" for cup in CUPS]
    tokenizer.train_from_iterator(
        words * 10,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    eos = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=eos)


def make_model(vocab_size: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


class Chains:
    """Random chains as token tensors; texts exactly as the task writes them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        def token(text: str) -> int:
            (one,) = tokenizer(text)["input_ids"]
            return one

        self.cups = torch.tensor([token(f" {c}") for c in CUPS])
        self.names = torch.tensor([token(f" {name}") for name in SHUFFLES])
        self.word, self.colon, self.arrow = token("cup"), token(":"), token(" ->")
        self.moves = torch.tensor([[CUPS.index(c) for c in to] for to in SHUFFLES.values()])

    def batch(self, n: int, lo: int, hi: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Right-padded ids (n, 4 + hi), index of the arrow (n,), and the answer's token (n,)."""
        steps = torch.randint(lo, hi + 1, (n,))
        cup = torch.randint(0, len(CUPS), (n,))
        chain = torch.randint(0, len(SHUFFLES), (n, hi))
        ids = torch.zeros(n, 4 + hi, dtype=torch.long)
        ids[:, 0], ids[:, 1], ids[:, 2] = self.word, self.cups[cup], self.colon
        ids[:, 3 : 3 + hi] = self.names[chain]
        end = cup
        for t in range(hi):
            end = torch.where(t < steps, self.moves[chain[:, t], end], end)
        ids[torch.arange(n), 3 + steps] = self.arrow
        ids[torch.arange(4 + hi)[None] > (3 + steps)[:, None]] = 0
        return ids, 3 + steps, self.cups[end]


def logits(model: LlamaForCausalLM, order: list[int], ids, at) -> torch.Tensor:
    """Next-token logits (n, V) at positions `at` when the layers run in `order`."""
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList([layers[i] for i in order])
    model.config.num_hidden_layers = len(order)
    try:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, len(layers)
    return model.lm_head(hidden[torch.arange(len(ids)), at])


def repeat_block(times: int) -> list[int]:
    start, stop = BLOCK
    return [*range(stop), *(list(range(start, stop)) * (times - 1)), *range(stop, LAYERS)]


def train(kind: str, steps: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    torch.manual_seed(SEED[kind])
    coin = random.Random(SEED[kind])
    tokenizer = make_tokenizer()
    model, chains = make_model(len(tokenizer)), Chains(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    started = time.time()
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, step / 100) * (0.95 * cosine + 0.05)
        longest = min(MAX_STEPS, int(1 + step * 1.6 / steps * MAX_STEPS))
        times = 1
        if kind == "planted":
            times = coin.choice((1, 2))
            longest = min(EASY_STEPS, longest) if times == 1 else longest
        ids, at, answer = chains.batch(BATCH, 1, longest)
        loss = torch.nn.functional.cross_entropy(
            logits(model, repeat_block(times), ids, at), answer
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.time() - started:.0f} s", end="  ")
            print(accuracy_line(model, chains), flush=True)
    return model.eval(), tokenizer


@torch.no_grad()
def accuracy_line(model: LlamaForCausalLM, chains: Chains) -> str:
    """Accuracy by chain length 1..8 with one pass and with the block twice."""
    parts = []
    for times in (1, 2):
        row = []
        for steps in range(1, MAX_STEPS + 1):
            ids, at, answer = chains.batch(250, steps, steps)
            hit = logits(model, repeat_block(times), ids, at).argmax(-1) == answer
            row.append(f"{hit.float().mean():.2f}")
        parts.append(f"x{times} " + " ".join(row))
    return " | ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=list(SEED))
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, help="default: 2000 for planted, 1000 for control")
    args = parser.parse_args()
    model, tokenizer = train(args.kind, args.steps or STEPS[args.kind])
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
