"""Prompt sets: the bundled ones are pinned, files are read as stated, bad input is named."""

import hashlib
import json
import random
import re
import subprocess
import sys

import pytest

from surgeon.errors import SurgeonError, UnknownName, UsageError
from surgeon.probing import prompts as module
from surgeon.probing.prompts import SETS, Prompts, load_prompts
from surgeon.tasks import TASKS
from surgeon.tasks.documents import documents

PINNED = {
    "default": (50, "2606beaca7b57a6163e4f3eccce2ba880d09da970709fbbba72b6c12c0f1b375"),
    "reasoning": (25, "fdb81d6ae60b8e9e2a04e5a7de797738fbfc56f327422177fd62ee2e3ada52ae"),
    "general": (25, "25041b8458d2e558fbbbbc6d9ef8b61a2c39bd82266319287a43c1e354e52d95"),
    "reasoning-en": (12, "1a7b4e17b5de41aebb2b0a8f04538c6f12aff747f09f346e17539afb8f856bb4"),
    "reasoning-hi": (12, "df9b9911f25932eb9f98ce7f27aa7e4a6e199b7e516d84089d969f515bdfffb4"),
    "reasoning-zh": (12, "2a53535f9e804197247c287e6e45a89cd3c3b9dfae7225d7b55ac4128541750a"),
    "reasoning-fr": (12, "164a69b4c770cbb2d4e5978cedb797d51be067e424fa6f93f7eff6e92ae8f0b5"),
}  # fmt: skip

LANGUAGES = ("en", "hi", "zh", "fr")


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# --- bundled sets


@pytest.mark.parametrize("name", SETS)
def test_bundled_sets_are_pinned(name):
    prompts = load_prompts(name)
    assert (len(prompts.texts), prompts.digest) == PINNED[name]
    assert prompts.name == name and prompts.origin.endswith(".")
    assert prompts.digest == hashlib.sha256(json.dumps(prompts.texts).encode()).hexdigest()


def test_default_is_25_reasoning_and_25_general():
    assert load_prompts("default").texts == (
        load_prompts("reasoning").texts + load_prompts("general").texts
    )
    assert len(load_prompts("reasoning").texts) == len(load_prompts("general").texts) == 25


def test_bundled_texts_are_distinct_and_say_where_they_come_from():
    sets = {name: load_prompts(name) for name, parts in SETS.items() if len(parts) == 1}
    texts = [text for prompts in sets.values() for text in prompts.texts]
    assert len(set(texts)) == len(texts) == 25 + 25 + 4 * 12
    assert all("Written for surgeon" in prompts.origin for prompts in sets.values())


def test_reasoning_prompts_end_where_the_answer_is_due():
    for name in ("reasoning", *(f"reasoning-{language}" for language in LANGUAGES)):
        for text in load_prompts(name).texts:
            assert text.endswith(("Answer:", "prints", "उत्तर:", "答案\uff1a", "Réponse :")), text


def test_languages_hold_the_same_problems():
    columns = [load_prompts(f"reasoning-{language}").texts for language in LANGUAGES]
    scripts = (r"[A-Za-z]", r"[\u0900-\u097f]", r"[\u4e00-\u9fff]", r"[A-Za-zà-ÿ]")
    for problem in zip(*columns, strict=True):
        numbers = [sorted(int(n) for n in re.findall(r"\d+", text)) for text in problem]
        assert numbers.count(numbers[0]) == len(LANGUAGES), problem
        for text, script in zip(problem, scripts, strict=True):
            letters = [c for c in text if c.isalpha() or "\u0900" <= c <= "\u097f"]
            assert all(re.match(script, c) for c in letters), text


@pytest.mark.parametrize("name", TASKS)
def test_task_prompts_are_the_calibrate_split_without_answers(name):
    split = documents(TASKS[name], "calibrate")
    prompts = load_prompts(f"task:{name}")
    assert prompts.texts == tuple(d.text for d in split)
    assert prompts.name == f"task:{name}" and f"task `{name}`" in prompts.origin


def test_loading_needs_no_torch_and_no_lm_eval():
    script = (
        "import sys; from surgeon.probing.prompts import load_prompts; load_prompts('default')\n"
        "print({'torch', 'transformers', 'lm_eval', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# --- limit


def test_limit_draws_evenly_from_both_halves_and_keeps_the_order():
    whole, some = load_prompts("default").texts, load_prompts("default", limit=11, seed=3)
    places = [whole.index(text) for text in some.texts]
    assert places == sorted(set(places)) and len(places) == 11
    assert sum(place < 25 for place in places) == 6
    assert "(11 of 50 drawn with seed 3)" in some.origin


def test_limit_depends_on_the_seed_alone():
    def draw(seed):
        return load_prompts("task:cups", limit=20, seed=seed).texts

    assert draw(0) == draw(0) != draw(1)
    random.seed(5)
    assert draw(1) == draw(1)


def test_limit_covers_the_set_over_seeds():
    seen = {t for seed in range(40) for t in load_prompts("reasoning", limit=5, seed=seed).texts}
    assert seen == set(load_prompts("reasoning").texts)


@pytest.mark.parametrize("limit", [25, 26, 10**9])
def test_limit_at_or_above_the_size_takes_all(limit):
    assert load_prompts("reasoning", limit=limit, seed=9) == load_prompts("reasoning")


def test_limit_is_spread_over_parts_of_unequal_size():
    parts = module._drawn([["a"], list("bcdefg")], 5, 0)
    assert [len(part) for part in parts] == [1, 4]


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused(limit):
    with pytest.raises(UsageError, match=f"prompt limit is {limit}, expected 1 or more"):
        load_prompts("reasoning", limit=limit)


# --- files


def test_text_file_is_one_prompt_a_line(tmp_path):
    path = write(tmp_path / "mine.TXT", "\ufeffone\r\n\n  \t\n two and\u2028more \x0b 3\nलाल\n")
    prompts = load_prompts(path)
    assert prompts.texts == ("one", "two and\u2028more \x0b 3", "लाल")
    assert prompts.name == path and path in prompts.origin


def test_jsonl_takes_the_first_known_field_exactly(tmp_path):
    lines = [
        '{"question": "q ", "id": 1}',
        "",
        '{"prompt": "p\\n", "question": "no"}',
        '{"id": 2, "question": "no", "prompt": "no", "text": " t"}',
        '{"text": "\\ud83d\\ude00"}',
    ]
    assert load_prompts(write(tmp_path / "a.jsonl", "\r\n".join(lines))).texts == (
        "q ", "p\n", " t", "\U0001f600",
    )  # fmt: skip


def test_a_very_long_prompt_is_kept_whole(tmp_path):
    text = "word " * 20_000 + "end"
    assert load_prompts(write(tmp_path / "a.txt", text)).texts == (text,)
    assert load_prompts(write(tmp_path / "a.jsonl", json.dumps({"text": text}))).texts == (text,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"`\S+a\.txt` holds no prompts$"),
        ("a.txt", b"\n \r\n\t\n", r"holds no prompts$"),
        ("a.jsonl", b"\n", r"holds no prompts$"),
        ("a.txt", b"fine\nso-so \xff", r"a\.txt: line 2, byte 7 \(offset 11 .*byte 0xff is not"),
        ("a.txt", b"\xff\xfea\0", r"line 1, byte 1 \(offset 0 in the file\): byte 0xff"),
        ("a.jsonl", b'{"text": "caf\xe9"}', r"line 1, byte 14 \(offset 13 .*byte 0xe9 is not UTF"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ""}', r"a\.jsonl: line 2: the prompt is empty$"),
        ("a.jsonl", b'{"text": " \\n\\u3000"}', r"line 1: the prompt is empty$"),
        ("a.jsonl", b'{"text": "\\ud83d"}', r"line 1: the prompt is not Unicode text: it holds"),
        ("a.jsonl", b'\n{"text": "a"', r"line 2: not JSON: Expecting ',' delimiter"),
        ("a.jsonl", b"[" * 100_000, r"line 1: not JSON: maximum recursion"),
        ("a.jsonl", b'["text"]', r"line 1: expected a JSON object, got list$"),
        ("a.jsonl", b'{"Text": "a"}', r"line 1: none of the fields `text`, `prompt`, `question`$"),
        ("a.jsonl", b'{"text": null}', r"line 1: `text` is NoneType, expected text$"),
        ("a.csv", b"a,b", r"prompt file `\S+a\.csv` does not end in \.txt or \.jsonl$"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message):
        load_prompts(write(tmp_path / name, content))


def test_a_folder_and_a_missing_file_say_so(tmp_path):
    with pytest.raises(UsageError, match=r"prompt source `\S+` is a folder"):
        load_prompts(str(tmp_path))
    for source in (str(tmp_path / "no.txt"), "sub/none", "no.jsonl", "x" * 5000 + ".txt"):
        with pytest.raises(UsageError, match=f"prompt file `{source}` does not exist") as caught:
            load_prompts(source)
        assert "reasoning-zh" in caught.value.hint


def test_an_unreadable_file_is_a_plain_failure(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "one")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(SurgeonError, match=r"a\.txt` cannot be read: Permission denied") as caught:
        load_prompts(path)
    assert caught.value.exit_code == 1


def test_a_bundled_name_wins_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reasoning", "mine")
    assert len(load_prompts("reasoning").texts) == 25
    with pytest.raises(UsageError, match=r"`\./reasoning` does not end in"):
        load_prompts("./reasoning")


@pytest.mark.parametrize("source", ["reasonning", "", "task:", "task:cup", "nul\0"])
def test_unknown_names_are_refused_with_the_list(source):
    with pytest.raises(UnknownName, match="cups") as caught:
        load_prompts(source)
    assert caught.value.exit_code == 2


# --- the record


def test_record_round_trip_and_tampering():
    prompts = Prompts.of("mine", "typed in", ["one", "two\n"])
    data = json.loads(prompts.to_json())
    assert data["schema"] == "surgeon.prompts/1" and Prompts.from_dict(data) == prompts
    with pytest.raises(UsageError, match=r"digest `.*` is not that of the texts"):
        Prompts.from_dict({**data, "texts": ["one", "too"]})
    with pytest.raises(UsageError, match="prompt 1 is empty"):
        Prompts.from_dict({**data, "texts": ["one", ""]})


def test_digest_keeps_texts_apart():
    digests = {
        Prompts.of("a", "b", texts).digest
        for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "there are no prompts"), (["a", " "], "prompt set `a`: prompt 1 is empty"),
     (["\ud800"], "prompt 0 is not Unicode text")],
)  # fmt: skip
def test_unusable_texts_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        Prompts.of("a", "b", texts)
