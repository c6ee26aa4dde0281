"""The bundled tasks: pinned documents, right answers by solvers that read only the text."""

import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest

from surgeon.errors import UnknownName
from surgeon.tasks import TASKS, cups, find_task
from surgeon.tasks.documents import SPLITS, chance_level, documents, pick, shuffled

NAMES = ("arithmetic", "cups", "deduction", "navigation")

DIGESTS = {
    ("arithmetic", "select"): "271b52b051fc62924e1981c1175e61c44c937b0ee2e3866d515e22640a803de6",
    ("arithmetic", "confirm"): "2bc6d51913d4c6c87da8aa28ed0d457c4c7061d9092fb647465961ce34c84fac",
    ("arithmetic", "calibrate"): "359514b16a7de8423d3c7e68ba7c0faf67bdffaf61abdf0a3bc5a9a8e12b23d9",
    ("cups", "select"): "385724056f47c9ad5ae0c01a02b8d0d2e08f0bf36bca120c218a5fae4f04b59d",
    ("cups", "confirm"): "6b5ea337df8582e618f6020e7b65dee130c8e769501fc3e23027bc1b6973bd8e",
    ("cups", "calibrate"): "fbe2260cd60c483328de5e1a90cbb574794580a8dda05fef064774d6631063ad",
    ("deduction", "select"): "fedbbaa7bf6dfcc209448bb5b25000141cdc99a1963743fd3e8de83b7ba22d60",
    ("deduction", "confirm"): "43cbbbf1d00a9d9d10e47bc187a3048b22b32b57de4bff7721f84ca215123842",
    ("deduction", "calibrate"): "e69920f40e20ca6933ff423700bf33c200a2c74c58c96709b0f13d50315f5efa",
    ("navigation", "select"): "d16865b7f81380eebc7dddf63d0aa481695495c3abf650eb6994b49eeec9d67d",
    ("navigation", "confirm"): "7a2375eacf38c4163f170bf95cd0c9f6e9a856e95c30ff0acb0f88b9bd7397e6",
    ("navigation", "calibrate"): "090fc3c77c96da96e46b312e757c040387b678fb2825299e1672471f6bf14ba1",
}  # fmt: skip


def digest(split):
    """sha256 of the documents as JSON lines."""
    lines = (json.dumps([d.text, d.choices, d.gold], ensure_ascii=False) for d in split)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def everything(name):
    return [d for split in SPLITS for d in documents(TASKS[name], split)]


# --- solvers: each reads the text as a person would, and shares no code with its generator


def solve_cups(text):
    cup, chain = re.fullmatch(r"cup (\w): (.+) ->", text).groups()
    for name in chain.split():
        cup = cups.SHUFFLES[name][ord(cup) - ord("a")]
    return cup


ARITHMETIC = (
    (r"^Question: (?:Start with|A \w+ has) (\d+)", lambda v, a: a),
    (r"^Add (\d+) times (\d+)$|(\d+) (?:boxes|crates|baskets|trays) of (\d+)",
     lambda v, a, b: v + a * b),
    (r"^Subtract (\d+) times (\d+)$|^Then (\d+) \w+ \w+ (\d+) \w+ each$",
     lambda v, a, b: v - a * b),
    (r"^Add (\d+)$|(\d+) more", lambda v, a: v + a),
    (r"^Subtract (\d+)$|^(?:It|She) (?:sells|gives away|breaks|loses) (\d+)", lambda v, a: v - a),
    (r"^Multiply the result by (\d+)$|(\d+) times as many", lambda v, a: v * a),
    (r"^Divide the result by (\d+)$|equally \w+ (\d+)", lambda v, a: v / a),
)  # fmt: skip


def solve_arithmetic(text):
    value = None
    body, question = re.fullmatch(r"(.*)\. (\w[^.]*\?)\nAnswer:", text).groups()
    for sentence in body.split(". "):
        numbers, rule = next(
            ([int(g) for g in m.groups() if g], rule)
            for pattern, rule in ARITHMETIC
            if (m := re.search(pattern, sentence))
        )
        value = rule(value, *numbers)
        assert value > 0 and value == int(value)
    assert ("each" in question) == ("equally" in body)
    return str(int(value))


ORDINALS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4}


def allowed(sentence, order):
    """Whether a clue, read by its words, is true of `order`, objects first to last."""
    a, *rest = [w.lower() for w in re.findall(r"\w+", sentence) if w.lower() in order]
    at = order.index(a)
    if not rest:
        (word,) = [w for w in re.findall(r"\w+", sentence) if w in ORDINALS]
        return (at == ORDINALS[word]) != (" not " in sentence)
    gap = order.index(rest[0]) - at
    if "next to" in sentence or " or directly " in sentence:
        return abs(gap) == 1
    return gap == 1 if "directly" in sentence else gap > 0


def solve_deduction(text, choices):
    """The answer, and the clues, when exactly one order fits."""
    objects = [c.lower() for c in choices]
    body, question = re.fullmatch(r"Question: .*?: (.*)\. ([^.]*\?)\nAnswer:", text).groups()
    listed, *clues = body.removesuffix(".").split(". ")
    clues = [c for c in clues if c != "No two of them tied"]
    assert [w.lower() for w in re.findall(r"\w+", listed) if w.lower() in objects] == objects
    fits = [o for o in permutations(objects) if all(allowed(c, o) for c in clues)]
    assert len(fits) == 1, text
    (asked,) = [w for w in re.findall(r"\w+", question) if w in ORDINALS]
    return fits[0][ORDINALS[asked]], clues, objects


COMPASS = {"north": 1j, "south": -1j, "east": 1, "west": -1}
SIDES = {"forward": 1j, "backward": -1j, "to the right": 1, "to the left": -1}


def solve_navigation(text):
    place, heading = 0, 1j
    for walked, where, turn in re.findall(
        r"(?:Walk|Take) (\d+) steps?(?: ([\w ]+))?\.|Turn (\w+)\.", text
    ):
        if turn:
            heading *= {"left": 1j, "right": -1j, "around": -1}[turn]
        else:
            place += int(walked) * (COMPASS | SIDES | {"": heading})[where]
    return "Yes" if place == 0 else "No"


# --- what holds for every task


def test_registry_lists_the_tasks_by_their_names():
    assert sorted(TASKS) == list(NAMES)
    assert all(name == task.name and task.summary for name, task in TASKS.items())
    assert find_task("cups") is TASKS["cups"]


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(UnknownName, match=r"unknown task `deductoin`.*cups, deduction") as caught:
        find_task("deductoin")
    assert caught.value.hint == "did you mean `deduction`?"
    with pytest.raises(UnknownName, match=r"unknown split `test`; known: calibrate, confirm"):
        documents(TASKS["cups"], "test")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_documents_are_pinned(name, split):
    assert digest(documents(TASKS[name], split)) == DIGESTS[name, split]


def test_documents_do_not_depend_on_the_hash_seed_or_on_what_ran_before():
    script = (
        "import sys; sys.path.insert(0, 'tests/unit'); import test_tasks as t\n"
        "print({t.digest(t.documents(t.TASKS[n], s)) == t.DIGESTS[n, s]"
        " for n in reversed(t.NAMES) for s in reversed(t.SPLITS)})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "{True}"


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_full_and_share_no_text(name):
    assert [len(documents(TASKS[name], split)) for split in SPLITS] == [1000] * 3
    assert len({d.text for d in everything(name)}) == 3000


@pytest.mark.parametrize("name", NAMES)
def test_choices_can_be_scored_as_continuations(name):
    for d in everything(name):
        assert d.text == d.text.strip() and d.text.isascii()
        assert len(set(d.choices)) == len(d.choices) and 0 <= d.gold < len(d.choices)
        assert not any(a != b and b.startswith(a) for a in d.choices for b in d.choices), d.choices
        assert all(c and c == c.strip() for c in d.choices)


@pytest.mark.parametrize(
    ("name", "chance"), [("cups", 0.1), ("arithmetic", 0.25), ("deduction", 47 / 180),
                         ("navigation", 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("split", SPLITS)
def test_chance_level_and_gold_positions(name, chance, split):
    docs = documents(TASKS[name], split)
    assert chance_level(docs) == pytest.approx(chance, abs=0.01)
    for n in {len(d.choices) for d in docs}:
        golds = Counter(d.gold for d in docs if len(d.choices) == n)
        total = sum(golds.values())
        chi2 = sum((golds[i] - total / n) ** 2 / (total / n) for i in range(n))
        assert chi2 < n - 1 + 4 * (2 * (n - 1)) ** 0.5, golds


@pytest.mark.parametrize("draw", [pick, lambda r, o: shuffled(r, o)[0]], ids=["pick", "shuffled"])
def test_draws_are_uniform(draw):
    rng = random.Random(0)
    counts = Counter(draw(rng, "abcd") for _ in range(8000))
    assert all(1850 < counts[c] < 2150 for c in "abcd")


# --- the answers


def test_cups_gold_by_independent_solver():
    assert all(solve_cups(d.text) == d.choices[d.gold] for d in everything("cups"))


def test_arithmetic_gold_by_independent_solver():
    for d in everything("arithmetic"):
        assert solve_arithmetic(d.text) == d.choices[d.gold], d


def test_arithmetic_choices_have_one_length_and_every_rank():
    ranks = Counter()
    for d in everything("arithmetic"):
        assert len({len(c) for c in d.choices}) == 1
        ranks[sorted(d.choices).index(d.choices[d.gold])] += 1
    assert all(690 < ranks[r] < 810 for r in range(4)), ranks


def nearest_to_the_rest(d):
    return min(d.choices, key=lambda c: sum(abs(int(c) - int(o)) for o in d.choices))


def commonest_last_digit(d):
    return max(d.choices, key=lambda c: sum(o[-1] == c[-1] for o in d.choices))


def in_the_closest_pair(d):
    return min(d.choices, key=lambda c: sorted(abs(int(c) - int(o)) for o in d.choices)[1])


@pytest.mark.parametrize("guess", [nearest_to_the_rest, commonest_last_digit, in_the_closest_pair])
def test_arithmetic_choices_alone_tell_little(guess):
    docs = everything("arithmetic")
    share = sum(guess(d) == d.choices[d.gold] for d in docs) / len(docs)
    assert share < 0.31  # chance is 0.25


def test_deduction_gold_by_independent_solver():
    for d in everything("deduction"):
        answer, _, _ = solve_deduction(d.text, d.choices)
        assert answer == d.choices[d.gold].lower(), d


def test_deduction_clues_are_all_needed_and_never_the_answer_itself():
    for d in documents(TASKS["deduction"], "confirm"):
        _, clues, objects = solve_deduction(d.text, d.choices)
        for left_out in clues:
            rest = [c for c in clues if c != left_out]
            fits = [o for o in permutations(objects) if all(allowed(c, o) for c in rest)]
            assert len(fits) > 1, (left_out, d)
        asked = re.findall(r"first|second|third|fourth|fifth", d.text)[-1]
        assert not any(asked in c and " not " not in c for c in clues), d


def test_navigation_gold_by_independent_solver():
    for d in everything("navigation"):
        assert solve_navigation(d.text) == d.choices[d.gold], d


def test_navigation_yes_and_no_use_the_same_words():
    docs = everything("navigation")
    for trait in (
        lambda t: sum(map(int, re.findall(r"\d", t))),
        lambda t: len(re.findall(r"\d", t)),
        lambda t: len(t),
        lambda t: max(re.findall(r"\d", t)),
    ):
        mean = {
            gold: sum(float(trait(d.text)) for d in docs if d.gold == gold)
            / sum(d.gold == gold for d in docs)
            for gold in (0, 1)
        }
        assert mean[0] == pytest.approx(mean[1], rel=0.02)
    assert all(sum(map(int, re.findall(r"\d", d.text))) % 2 == 0 for d in docs)
