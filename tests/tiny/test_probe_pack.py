"""Batches without padding, and the arguments captured from the model's own forward."""

import probe_models
import pytest
import torch

from surgeon.errors import UnsupportedModel, UsageError
from surgeon.layerwise import LayerRunner
from surgeon.probing.capture import capture, keeps_apart
from surgeon.probing.pack import group, pack
from surgeon.probing.tokens import encode

IDS = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]


def test_rows_are_filled_in_order_up_to_the_budget():
    first, second, third = pack(IDS, budget=4)
    assert first.ids.tolist() == [[5, 6, 7, 8]] and first.positions.tolist() == [[0, 1, 2, 0]]
    assert (first.prompts, first.lengths, first.spans()) == ((0, 1), (3, 1), [(0, 3), (3, 4)])
    assert first.owners().tolist() == [0, 0, 0, 1] and first.last().tolist() == [2, 3]
    assert second.prompts == (2,) and not second.packed
    assert third.ids.tolist() == [[13, 14]]
    (long,) = pack([[1, 2, 3, 4, 5, 6]], budget=4)
    assert long.ids.shape == (1, 6)


def test_groups_are_rows_of_equal_length():
    batches = group([*IDS, [20, 21], [22]], budget=4)
    assert [b.prompts for b in batches] == [(1, 5), (3, 4), (0,), (2,)]
    pair = batches[1]
    assert pair.ids.tolist() == [[13, 14], [20, 21]] and not pair.packed
    assert pair.owners().tolist() == [0, 0, 1, 1] and pair.last().tolist() == [1, 3]


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("make", [lambda: pack(IDS, 100), lambda: group(IDS, 100)])
def test_means_are_over_the_tokens_of_each_prompt(make, skip):
    for batch in make():
        hidden = torch.randn(*batch.ids.shape, 3)
        flat, got = hidden.reshape(-1, 3), batch.means(hidden, skip)
        for place, (start, stop) in enumerate(batch.spans()):
            # a prompt too short to skip anything keeps all of its positions
            drop = skip if stop - start > skip else 0
            torch.testing.assert_close(got[place], flat[start + drop : stop].mean(0))


def runner_of(family, **changes):
    model = probe_models.make_model(family, **changes)
    return LayerRunner(model)


def test_packing_is_judged_by_the_masks():
    (batch,) = pack(IDS, 100)
    assert keeps_apart(capture(runner_of("mistral"), batch))
    assert not keeps_apart(capture(runner_of("bloom"), batch))
    item = capture(runner_of("llama"), batch)
    assert keeps_apart(item)
    mask = item.calls[3].kwargs["attention_mask"]
    mask[..., 4, 0] = True  # the second token of prompt 2 may now see prompt 0
    assert not keeps_apart(item)


def test_forwards_are_put_back_after_an_error():
    runner = runner_of("llama")
    (batch,) = pack(IDS, 100)
    bad = batch.ids.clone()
    bad[0, 0] = 10_000
    with pytest.raises(IndexError):
        capture(runner, type(batch)(bad, batch.positions, batch.prompts, batch.lengths))
    assert all("forward" not in layer.__dict__ for layer in runner.layers)
    capture(runner, batch)
    assert all("forward" not in layer.__dict__ for layer in runner.layers)


def test_a_model_that_runs_a_layer_twice_is_refused():
    runner = runner_of("llama")
    own = runner.owner.forward
    layer = runner.layers[0]

    def forward(input_ids, position_ids=None, use_cache=False):
        hidden = runner.owner.embed_tokens(input_ids)
        return layer(layer(hidden))

    runner.owner.forward = forward
    (batch,) = pack(IDS, 100)
    with pytest.raises(UnsupportedModel, match="does not run its layers once each, in order"):
        capture(runner, batch)
    runner.owner.forward = own


def test_a_long_prompt_is_cut_and_the_cut_is_stated():
    text = "w1 w2 " * 17_000  # over 100,000 characters
    ids, notes = encode(probe_models.tokenizer(), [text, "w3"], max_tokens=64)
    assert [len(row) for row in ids] == [64, 1]
    assert notes == ["1 of 2 prompts were cut to 64 tokens"]


def test_prompts_that_cannot_be_used():
    tokenizer = probe_models.tokenizer()
    with pytest.raises(UsageError, match="there are no prompts"):
        encode(tokenizer, [])
    with pytest.raises(UsageError, match=r"prompt 1 has no tokens: ' \\n'"):
        encode(tokenizer, ["w1", " \n"])
    with pytest.raises(UsageError, match="token id 95, the model has 90 embeddings"):
        encode(tokenizer, ["w93"], vocabulary=90)
    with pytest.raises(UsageError, match="no chat template"):
        encode(tokenizer, ["w1"], chat_template=True)
    tokenizer.chat_template = "{% for m in messages %}w5 {{ m.content }} w6{% endfor %}"
    ids, _ = encode(tokenizer, ["w1"], chat_template=True)
    assert ids == [tokenizer("w5 w1 w6")["input_ids"]]


def test_rows_bound_the_masked_part_of_attention():
    # attention grows with the square of a row: with bounded rows it is linear in tokens
    def work(prompts):
        return sum(batch.ids.numel() ** 2 for batch in pack([[1] * 20] * prompts, budget=100))

    assert work(400) == 4 * work(100) == 400 * 20 * 100
