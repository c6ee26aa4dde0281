"""The report, the summary and the card of a finished run."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id
from made_run import made_run
from typer.testing import CliRunner

from surgeon.cli.app import app
from surgeon.errors import UsageError
from surgeon.report import svg, tables
from surgeon.report.card import card_metadata, is_as_written, render_card, run_facts
from surgeon.report.html import render_html
from surgeon.report.markdown import render_markdown
from surgeon.report.records import read_run
from surgeon.topics import TOPICS
from surgeon.verification.checks import verify

pytestmark = pytest.mark.slow
VOID = {"meta", "link", "br"}
SHAPES = {"line", "polyline", "polygon", "rect"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a browser would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.ids, self.links, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "iframe", "img", "object", "embed"):
            self.loaded.append(tag)
        self.loaded += [values[k] for k in ("src", "srcset", "data") if k in values]
        if tag == "link":
            self.loaded.append(values["href"])
        if tag == "a":
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES, tag

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text):
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def records():
    return read_run(made_run())


def test_the_run_wrote_all_three(records):
    assert (records.folder / "report.html").read_text() == render_html(records)
    assert (records.folder / "report.md").read_text() == render_markdown(records)
    assert (records.folder / "model/README.md").read_text() == render_card(run_facts(records))


def test_the_files_of_a_run_are_those_that_help_lists(records):
    runs, sweeps = TOPICS["files"].split("Files of a sweep")
    assert all(name in sweeps for name in ("sweep.json ", "sweep.jsonl", "sweep.html"))
    lines = runs.splitlines()[2:]
    listed = {line.split()[0].rstrip("/") for line in lines if line[:1].isalpha()} - {
        "A",
        "sweep.*",
    }
    assert listed == {path.name for path in records.folder.iterdir()}


def test_the_page_is_whole_small_and_loads_nothing(records):
    text = render_html(records)
    page = parsed(text)
    assert page.loaded == ["data:,"]
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert "default-src 'none'" in text
    assert len(text.encode()) < 3_000_000
    assert page.links and all(link[0] == "#" and link[1:] in page.ids for link in page.links)


def test_the_page_holds_the_numbers_of_the_records(records):
    said = " ".join(parsed(render_html(records)).text)
    check, selection = records.check, records.outcome.selection
    assert f"{check.verdict.difference:+.3f}" in said
    assert check.protocol_sha256 in said
    assert all(each.digest in said for each in records.manifest.files)
    assert all(f" {each.block} " in f" {said} " for each in selection.tried)
    assert f"Only the candidate was right: {check.verdict.wins}" in said
    assert f"Only the base was right: {check.verdict.losses}" in said


def test_the_measured_cost_is_on_the_page_the_summary_and_the_card(records):
    cost = records.outcome.cost
    ratio = f"{cost.decode_ratio.median:.2f}x"
    page = " ".join(parsed(render_html(records)).text)
    for text in (page, render_markdown(records), render_card(run_facts(records))):
        for part in (ratio, "decode, tokens/s", "prefill, tokens/s", "peak memory, MB",
                     "weights as loaded, MB", f"{cost.candidate.peak / 1e6:,.1f}",
                     "2 turns of each", cost.machine):  # fmt: skip
            assert part in text, part
    growth = len(records.outcome.plan) / records.outcome.plan.depth - 1
    assert f"{growth:+.0%} layers: {ratio} the base's tokens" in render_card(run_facts(records))
    assert ratio in tables.stage_line(records.outcome.stages[-1])


def test_flipped_documents_are_the_tasks_own(records):
    from surgeon.tasks import TASKS
    from surgeon.tasks.documents import documents

    row = next(r for r in records.rows if r["candidate"]["score"] > r["base"]["score"])
    document = documents(TASKS["cups"], "confirm")[row["doc_id"]]
    assert document.choices[row["candidate"]["chosen"]] == document.choices[document.gold]
    assert document.text in " ".join(parsed(render_html(records)).text)


def test_hostile_names_are_text(tmp_path):
    folder = shutil.copytree(made_run(), tmp_path / "run")
    nasty = "<script>alert(1)</script>"
    data = json.loads((folder / "run.json").read_text())
    data["recipe"]["name"] = data["warnings"] = nasty
    data["warnings"] = [nasty]
    data["selection"]["tried"][0]["origin"] = nasty
    (folder / "run.json").write_text(json.dumps(data))
    page = parsed(render_html(read_run(folder)))
    assert page.loaded == ["data:,"] and nasty in " ".join(page.text)


def test_a_run_without_a_winner_has_a_report_and_no_card(tmp_path):
    folder = shutil.copytree(made_run(), tmp_path / "run")
    data = json.loads((folder / "run.json").read_text())
    data |= {"plan": None, "model": None, "conclusion": "no winner"}
    data["selection"] |= {"winner": None, "origin": None, "reason": "none gained enough"}
    (folder / "run.json").write_text(json.dumps(data))
    shutil.rmtree(folder / "model")
    done = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert [p.rpartition("/")[2] for p in json.loads(done.stdout)["files"]] == [
        "report.html", "report.md"
    ]  # fmt: skip
    said = " ".join(parsed((folder / "report.html").read_text()).text)
    assert "none gained enough" in said and "Confirmation" not in said
    assert "No model was saved" in (folder / "report.md").read_text()
    with pytest.raises(UsageError, match="saved no model"):
        run_facts(read_run(folder))


def test_an_unfinished_run_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2 and "`run.json` is missing" in done.stderr


def test_the_card_has_metadata_that_reads_back(records):
    text = render_card(run_facts(records), "someone/upgraded")
    data = ModelCard(text).data
    (result,) = data.eval_results
    verdict = records.check.verdict
    assert data.model_name == "upgraded" and "surgeon" in data.tags
    assert result.metric_value == pytest.approx(verdict.candidate, abs=1e-6)
    assert result.metric_args["n"] == verdict.n
    assert result.metric_args["interval"] == pytest.approx(list(verdict.interval), abs=1e-6)
    assert data.base_model is None, "the demo model is not on the Hub"
    assert str(made_run()) not in text, "no path of this disk"
    assert 'from_pretrained("someone/upgraded"' in text
    for each in records.outcome.selection.tried:
        assert f"| {each.block}" in text, "blocks that did not help are listed too"


def test_the_card_names_a_hub_base_once_and_carries_its_licence(records):
    facts = run_facts(records)
    facts = type(facts)(
        **{
            **facts.__dict__,
            "base": "Qwen/Qwen2.5-0.5B@abc",
            "source_metadata": {"license": "apache-2.0", "language": ["en"], "tags": ["chat"]},
        }
    )
    data = card_metadata(facts, "x").to_dict()
    assert data["base_model"] == "Qwen/Qwen2.5-0.5B" and data["base_model_relation"] == "merge"
    assert data["license"] == "apache-2.0" and data["language"] == ["en"]
    assert "chat" not in data["tags"]
    assert "surgeon duplicate Qwen/Qwen2.5-0.5B@abc rebuilt --layers" in render_card(facts)


RELATIONS = {"adapter", "finetune", "merge", "quantized"}
"""What the Hub knows as `base_model_relation`."""


@pytest.mark.parametrize(
    "carried",
    [
        {},
        {"license": "apache-2.0", "language": ["en"], "pipeline_tag": "text-generation"},
        {"license": "other", "license_name": "own", "license_link": "https://x/LICENSE"},
        {"license": "llama3.2", "language": ["en", "de"], "extra_gated_prompt": "terms"},
    ],
    ids=lambda carried: carried.get("license", "none"),
)
def test_the_metadata_survives_the_hub_library(records, carried):
    """Card text -> the library's objects -> YAML -> the same; and results as `model-index`.

    The Hub's own validator answers over the network; this is what can be asked without it.
    """
    facts = replace(run_facts(records), base="Qwen/Qwen2.5-0.5B@abc", source_metadata=carried)
    text = render_card(facts, "me/upgraded")
    raw = yaml.safe_load(text.split("---")[1])
    card = ModelCard(text)
    assert card.data.to_dict() == ModelCardData(**ModelCard(text).data.__dict__).to_dict() == raw
    assert yaml.safe_load(card.data.to_yaml()) == raw
    for key in ("license", "license_name", "license_link", "language"):
        assert raw.get(key) == carried.get(key), key
    assert raw["base_model_relation"] in RELATIONS and "extra_gated_prompt" not in raw
    validate_repo_id(raw["base_model"])
    name, results = model_index_to_eval_results(raw["model-index"])
    assert name == raw["model-index"][0]["name"] == "upgraded" and results == card.data.eval_results
    assert eval_results_to_model_index(name, results) == raw["model-index"]
    for each in results:
        assert math.isfinite(each.metric_value) and each.task_type == raw["pipeline_tag"]
        assert each.dataset_type and each.dataset_name and each.metric_type


def test_a_base_that_is_no_repository_is_not_named_as_one(records):
    for base in ("demo:planted", "./folder", "/models/x", "folder"):
        raw = card_metadata(replace(run_facts(records), base=base), "x").to_dict()
        assert "base_model" not in raw and "base_model_relation" not in raw, base


def test_the_card_does_not_break_verification(records):
    found = verify(records.folder / "model", base=records.outcome.source.path, strict=False)
    assert found.passed


def test_a_written_card_is_told_from_an_edited_one(records):
    text = render_card(run_facts(records))
    assert is_as_written(text)
    assert not is_as_written(text.replace("improved", "enormously improved"))
    assert not is_as_written(text + "More words.\n") and not is_as_written("# My own card\n")


def test_markdown_tables_are_rectangular(records):
    for text in (render_markdown(records), render_card(run_facts(records))):
        rows = re.findall(r"(?m)^\|.*\|$", text)
        assert rows
        for block in re.split(r"\n\n", text):
            widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, block


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.6, 0.6), (3.1, 23), (1e-4, 3e-4), (5, 5)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = svg.round_ticks(low, high, 3)
    assert 1 <= len(ticks) <= 12 and all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
    assert len(ticks) >= 3 or low == high


def test_gaps_stay_gaps():
    nan = float("nan")
    figure = svg.layer_line([1.0, 2.0, nan, 3.0], (1, 3), "x")
    assert figure.count("<polyline") == 2 and figure.count("<circle") == 3
    assert "nan" not in figure and svg.layer_line([nan, nan], None, "x") == ""


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
@pytest.mark.parametrize("size", ["400,900", "1200,900"])
def test_a_browser_shows_it_without_a_complaint(records, tmp_path, size):
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}",
            "--enable-logging=stderr", "--v=0", f"--screenshot={tmp_path / 'page.png'}",
            (records.folder / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert "CONSOLE" not in done.stderr
