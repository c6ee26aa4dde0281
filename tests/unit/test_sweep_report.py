"""What shows a sweep: the figures, the page, the table in a terminal."""

import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import sweeps
from rich.console import Console

from surgeon.block import Block
from surgeon.errors import SurgeonError
from surgeon.report import heatmap
from surgeon.report.sweep_html import embedded, render_sweep_html
from surgeon.report.sweep_map import (
    BETTER,
    MIDDLE,
    STOPPED,
    WORSE,
    block_maps,
    colour_reach,
    front,
    has_front,
    marks,
    short,
    spread,
    value_of,
)
from surgeon.report.sweep_svg import SHAPES
from surgeon.report.sweep_tables import sweep_table
from surgeon.sweeping.moves import Candidate, Repeat

VOID = {"meta", "link", "input"}
HOSTILE = "</script><script>alert(1)</script><!-- \"'&[bold]$\\frac{$\u2028"


def unmeasured(effect):
    nan = math.nan
    return effect.model_copy(
        update={
            "n": 0, "score": nan, "difference": nan, "interval": (nan, nan),
            "gold_difference": nan, "gold_interval": (nan, nan), "pareto": False, "dropped": None,
        }
    )  # fmt: skip


def with_gap(result, block):
    changed = tuple(unmeasured(e) if e.block == block else e for e in result.effects)
    return result.model_copy(update={"effects": changed})


def relabelled(result, label):
    """The best candidate and everything beside it under a name from elsewhere."""
    first = result.effects[0].model_copy(update={"label": label, "dropped": label})
    guess = result.predictions[0].model_copy(update={"scorer": label})
    return result.model_copy(
        update={
            "effects": (first, *result.effects[1:]), "winner": label, "model": f"models/{label}",
            "reason": label, "notes": (label,), "tasks": (label,), "ledger": label,
            "predictions": (guess, *result.predictions[1:]),
        }
    )  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a browser would run or load."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.loaded, self.text = [], [], [], []
        self.scripts, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [v for k, v in attrs if k in ("src", "srcset", "data", "href", "action")]
        self.attributes += [k for k, _ in attrs]
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += [k for k, _ in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def having(self, tag, kind):
        return [a for name, a in self.tags if name == tag and kind in a.get("class", "").split()]


def parsed(text):
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def shown(result, width=160, top=10):
    console = Console(width=width, file=io.StringIO())
    console.print(sweep_table(result, top))
    return console.file.getvalue()


# What is on a map


def test_only_single_blocks_are_on_a_map_and_each_way_of_repeating_has_its_own():
    result = sweeps.made(
        times=(2, 3), each=True, race=False,
        extra=[(Candidate(moves=(Repeat(block=Block(1, 4)), Repeat(block=Block(5, 8)))), 0.3)],
    )  # fmt: skip
    maps = block_maps(result)
    assert [(m.times, m.each) for m in maps] == [(2, False), (3, False), (2, True), (3, True)]
    assert [len(m.effects) for m in maps] == [27] * 4
    assert sum(len(m.effects) for m in maps) == len(result.effects) - 1
    for one in maps:
        for block, effect in one.effects.items():
            only = Repeat(block=block, times=one.times, each=one.each)
            assert effect.candidate.moves == (only,)


def test_the_outlined_block_is_the_sweeps_best_or_else_the_best_not_dropped():
    result = sweeps.made()
    assert block_maps(result)[0].best == result.best.block
    first = result.effects[0].model_copy(update={"dropped": "worse than another"})
    others = (first, *result.effects[1:])
    composed = result.model_copy(update={"effects": others, "winner": result.effects[3].label})
    assert block_maps(composed)[0].best == result.effects[3].block
    pair = sweeps.composed()
    dropped = tuple(
        e.model_copy(update={"dropped": "x"}) if e.label == "4:8" else e for e in pair.effects
    )
    rest = [e for e in dropped if e.block and not e.dropped]
    assert block_maps(pair)[0].best == Block(4, 8)
    assert (
        block_maps(pair.model_copy(update={"effects": dropped}))[0].best
        == max(rest, key=lambda e: e.difference).block
    )


def test_gaps_are_blocks_of_the_sizes_asked_for_without_a_number():
    result = with_gap(sweeps.made(), Block(5, 8))
    fewer = tuple(e for e in result.effects if e.block != Block(2, 6))
    one = block_maps(result.model_copy(update={"effects": fewer}))[0]
    assert one.gaps == (Block(2, 6), Block(5, 8))
    every = sweeps.made(depth=6, sizes=None)
    assert block_maps(every)[0].gaps == () and len(block_maps(every)[0].effects) == 21


def test_the_scale_is_not_ruled_by_a_few_ruined_candidates():
    candidate = sweeps.made().effects[0].candidate
    gains = [sweeps.effect(candidate, 12, d) for d in (0.1, 0.05, 0.0, -0.02, -0.05, -0.9)]
    assert colour_reach(gains, "score") == pytest.approx(0.2)
    small = [sweeps.effect(candidate, 12, d) for d in (-0.01, -0.02, -0.03, -0.04)]
    assert colour_reach(small, "score") == pytest.approx(0.03)
    assert colour_reach([sweeps.effect(candidate, 12, 0.1)], "score") == pytest.approx(0.1)
    assert colour_reach([sweeps.effect(candidate, 12, 0.0)], "gold") == 1
    assert colour_reach([unmeasured(gains[0])], "score") == 1


def test_scorers_that_agree_share_a_mark_and_marks_differ_in_shape():
    found = marks(sweeps.made())
    assert found[0].scorers == ("consensus", "decisiveness", "boundary")
    assert len({m.block for m in found}) == len(found) == len({m.style for m in found})
    assert sum(len(m.scorers) for m in found) == len(sweeps.predictions())
    assert set(heatmap.MARKER) == set(SHAPES)


def test_points_with_as_many_layers_lie_side_by_side_around_that_number():
    effects = sweeps.made().effects
    places = spread(effects)
    assert len(set(places)) == len(places)
    assert all(abs(x - e.added) < 0.31 for x, e in zip(places, effects, strict=True))


def test_the_front_is_in_order_and_needs_two_sizes():
    best = front(sweeps.composed())
    assert [e.added for e in best] == sorted({e.added for e in best})
    assert [e.difference for e in best] == sorted(e.difference for e in best)
    assert has_front(sweeps.composed()) and not has_front(sweeps.made(sizes=(3,)))


def test_long_labels_are_cut():
    assert short("4:8") == "4:8" and len(short("4:8 + " * 40)) == 48


# Figures


@pytest.fixture(scope="module")
def heat():
    return heatmap.heat_figure(with_gap(sweeps.made(), Block(5, 8)))


def panels(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_xlabel() == "first layer"]


def test_colours_are_symmetric_about_zero_which_is_the_middle_of_the_map(heat):
    assert len(panels(heat)) == 2
    for axes in panels(heat):
        image = axes.images[0]
        assert image.norm.vmax == -image.norm.vmin > 0
        red, _, blue, _ = image.cmap(image.norm(0.0))
        assert np.allclose([red, blue], [0xF4 / 255, 0xF2 / 255], atol=0.01)
        red, _, blue, _ = image.cmap(image.norm(image.norm.vmax))
        assert blue > red  # better is blue
        red, _, blue, _ = image.cmap(image.norm(image.norm.vmin))
        assert red > blue  # worse is orange


def test_every_square_lies_at_its_first_layer_and_end_and_holds_its_number(heat):
    result = with_gap(sweeps.made(), Block(5, 8))
    for axes, quantity in zip(panels(heat), ("score", "gold"), strict=True):
        image = axes.images[0]
        left, right, bottom, top = image.get_extent()
        table = image.get_array()
        assert (left, bottom) == (-0.5, -0.5)
        assert (right, top) == (table.shape[1] - 0.5, table.shape[0] - 0.5)
        measured = {e.block: value_of(e, quantity) for e in result.effects}
        for stop, start in np.ndindex(table.shape):
            block = Block(start, stop) if start < stop else None
            value = measured.get(block, math.nan)
            if math.isfinite(value):
                assert table[stop, start] == value
            else:
                assert table.mask[stop, start]
        assert table.count() == len(result.effects) - 1


def test_what_was_not_measured_is_hatched_and_has_no_colour(heat):
    for axes in panels(heat):
        hatched = [p for p in axes.patches if p.get_hatch()]
        assert [p.get_xy() for p in hatched] == [(4.5, 7.5)]
        assert not any(p.get_fill() for p in hatched)


def test_signs_stand_on_their_blocks(heat):
    result = sweeps.made()
    for axes in panels(heat):
        outlines = {p.get_xy() for p in axes.patches if not p.get_hatch()}
        assert outlines == {(3.5, 7.5)}  # 4:8
        spots = {}
        for line in axes.lines:
            at = line.get_xydata()[0].round().astype(int)
            spots.setdefault(line.get_marker(), set()).add(tuple(at))
        for mark in marks(result):
            assert (mark.block.start, mark.block.stop) in spots[heatmap.MARKER[mark.style]]
        dropped = {(e.block.start, e.block.stop) for e in result.effects if e.dropped}
        assert dropped <= spots["o"] and len(spots["o"] - dropped) == 1
    said = [text.get_text() for text in heat.legends[0].get_texts()]
    assert any("4:8: consensus, decisiveness, boundary" in text for text in said)
    assert any("dropped" in text for text in said) and "not measured" in said


def test_the_title_says_what_was_measured_and_the_bars_have_units(heat):
    title = heat.get_suptitle()
    assert "n 500" in title and "base 0.500" in title and "-1.234 nats" in title
    labels = [axes.get_ylabel() for axes in heat.axes]
    assert any("score (blue: better" in label for label in labels)
    assert any("nats per document (blue: better" in label for label in labels)


@pytest.mark.parametrize("predicted", [True, False])
def test_nothing_lies_over_the_titles(predicted):
    for result in (sweeps.made(predicted=predicted), sweeps.made(each=True, predicted=predicted)):
        figure = heatmap.heat_figure(result)
        figure.savefig(io.BytesIO())
        box = figure._suptitle.get_window_extent()
        legend = figure.legends[0].get_window_extent()
        for axes in panels(figure):
            title = axes.title if axes.title.get_text() else axes._left_title
            assert title.get_window_extent().y1 < box.y0
            assert axes.xaxis.label.get_window_extent().y0 > legend.y1


def test_maps_of_one_quantity_share_a_scale():
    figure = heatmap.heat_figure(sweeps.made(times=(2, 3), race=False))
    score, gold, again, gold_again = panels(figure)
    assert score.images[0].get_clim() == again.images[0].get_clim()
    assert (
        gold.images[0].get_clim() == gold_again.images[0].get_clim() != score.images[0].get_clim()
    )
    marked = [[m for m in axes.lines if m.get_marker() == "s"] for axes in (score, again)]
    assert len(marked[0]) == 1 and marked[1] == []  # scorers predict blocks run twice


def test_the_front_is_joined_and_has_its_intervals():
    result = sweeps.composed()
    axes = heatmap.pareto_figure(result).axes[0]
    best = front(result)
    joined = next(line for line in axes.lines if str(line.get_label()).startswith("Pareto front"))
    assert [tuple(p) for p in joined.get_xydata()] == [(e.added, e.difference) for e in best]
    bars = [tuple(map(tuple, line.get_xydata())) for line in axes.lines]
    for each in best:
        assert tuple((each.added, end) for end in each.interval) in bars
    pale = [line for line in axes.lines if line.get_color() == heatmap.PALE]
    assert sum(len(line.get_xdata()) for line in pale) == len(result.effects) - len(best)


def test_predictions_stand_beside_chance():
    result = sweeps.made()
    left, middle, right = heatmap.prediction_figure(result).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert len(names) == len(result.predictions)
    rows = dict(zip(left.get_yticks(), names, strict=True))
    for axes, value in ((middle, "chance_within_two"), (right, "chance_regret")):
        ticks = {
            y: x for line in axes.lines if line.get_marker() == "|" for x, y in line.get_xydata()
        }
        for at, name in rows.items():
            each = next(p for p in result.predictions if name.startswith(f"{p.scorer} "))
            assert ticks[at] == getattr(each, value)


def test_each_scorer_says_how_many_blocks_it_ranked():
    few = sweeps.prediction("stability", Block(5, 8), 0.06, 0.4, blocks=15, unranked=12)
    result = sweeps.made(predicted=False).model_copy(
        update={"predictions": (sweeps.predictions()[0], few)}
    )
    names = [t.get_text() for t in heatmap.prediction_figure(result).axes[0].get_yticklabels()]
    assert any("ranked 27 of 27" in name for name in names)
    assert any("ranked 15 of 27" in name for name in names)
    assert "27 of 27" in shown(result) and "15 of 27" in shown(result)
    said = render_sweep_html(result)
    assert "27 of 27" in said and "15 of 27" in said and "measured is 4:8" in said


def test_files_are_those_with_something_to_show(tmp_path):
    every = heatmap.save_sweep_plots(sweeps.composed(), tmp_path / "new" / "folder")
    names = ["sweep_heat.png", "sweep_pareto.png", "sweep_predictions.png"]
    assert [path.name for path in every] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in every)
    few = heatmap.save_sweep_plots(sweeps.made(sizes=(3,), predicted=False), tmp_path)
    assert [path.name for path in few] == names[:1]
    pair = Candidate(moves=(Repeat(block=Block(1, 4)), Repeat(block=Block(5, 8))))
    only = sweeps.made(predicted=False).model_copy(
        update={"effects": (sweeps.effect(pair, 12, 0.1),), "winner": None}
    )
    assert heatmap.save_sweep_plots(only, tmp_path) == []
    with pytest.raises(SurgeonError, match="no single block"):
        heatmap.heat_figure(only)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SurgeonError, match="cannot write to"):
        heatmap.save_sweep_plots(sweeps.made(), tmp_path / "file" / "folder")


def test_hostile_names_can_be_drawn(tmp_path):
    assert (
        len(heatmap.save_sweep_plots(relabelled(sweeps.made(), r"$\frac{$ [b] %s"), tmp_path)) == 3
    )


# The page


def test_the_page_is_whole_and_loads_nothing():
    text = render_sweep_html(sweeps.composed())
    page = parsed(text)
    assert page.loaded == ["data:,"]
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text and len(page.scripts) == 2
    assert not [name for name in page.attributes if name.startswith("on")]
    assert len(text.encode()) < 120_000


def test_the_one_script_is_the_one_that_the_page_allows():
    import base64
    import hashlib

    text = render_sweep_html(sweeps.made())
    script = parsed(text).scripts[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_every_block_is_a_square_on_both_maps_with_its_share_of_the_colour():
    result = with_gap(sweeps.made(), Block(5, 8))
    cells = parsed(render_sweep_html(result)).having("rect", "cell")
    assert len(cells) == 2 * len(result.effects)
    half = len(result.effects)
    for cells_of, quantity in ((cells[:half], "score"), (cells[half:], "gold")):
        reach = colour_reach(result.effects, quantity)
        origin = next(c for c in cells_of if c["data-at"] == "0:3")
        for cell in cells_of:
            block = Block.parse(cell["data-at"])
            effect = result.effects[int(cell["data-row"])]
            assert effect.block == block
            assert float(cell["x"]) - float(origin["x"]) == 20 * block.start
            assert float(origin["y"]) - float(cell["y"]) == 20 * (block.stop - 3)
            value = value_of(effect, quantity)
            if math.isnan(value):
                assert float(cell["fill-opacity"]) == 0
                continue
            share = min(1, abs(value) / reach)
            assert float(cell["fill-opacity"]) == pytest.approx(share, abs=6e-4)
            assert ("better" in cell["class"].split()) == (value > 0)


def test_a_block_without_a_number_has_no_middle_colour_and_is_hatched():
    def path(result, kind):
        return [a["d"] for a in parsed(render_sweep_html(result)).having("path", kind)]

    result = sweeps.made()
    gap = with_gap(result, Block(5, 8))
    assert [d.count("M") for d in path(result, "middle")] == [27, 27]
    assert path(result, "blank") == []
    assert [d.count("M") for d in path(gap, "middle")] == [26, 26]
    assert len(path(gap, "blank")) == 2


def test_the_page_has_the_colours_of_the_figures():
    text = render_sweep_html(sweeps.made())
    assert text.startswith("<!doctype html>")
    assert f"--better: {BETTER}; --worse: {WORSE}; --middle: {MIDDLE};" in text


def test_marks_and_scorers_to_choose_are_those_of_the_predictions():
    result = sweeps.made()
    page = parsed(render_sweep_html(result))
    drawn = {a["data-mark"] for a in page.having("path", "mark") if "data-mark" in a}
    assert drawn == {str(at) for at in range(len(marks(result)))}
    options = [a["value"] for name, a in page.tags if name == "option"]
    assert options[:2] == ["all", "none"] and len(options) == 2 + len(result.predictions)
    none = parsed(render_sweep_html(sweeps.made(predicted=False)))
    assert not [name for name, _ in none.tags if name in ("select", "option")]


def test_the_page_says_every_number_without_its_script():
    result = sweeps.made()
    said = " ".join(parsed(render_sweep_html(result)).text)
    for effect in result.effects:
        assert f"{effect.difference:+.3f}" in said and f"{effect.gold_difference:+.3f}" in said
    for each in result.predictions:
        assert each.scorer in said and f"{each.chance_regret:.3f}" in said
    for fact in (result.inputs, "sweep.jsonl", "5,600 of 14,000", "400 more were taken", "seed"):
        assert fact in said


def test_the_scripts_data_are_the_details_of_every_candidate():
    result = sweeps.made()
    data = json.loads(parsed(render_sweep_html(result)).scripts[0])
    assert len(data["rows"]) == len(result.effects)
    assert all(len(row) == len(data["names"]) for row in data["rows"])
    first = dict(zip(data["names"], data["rows"][data["first"]], strict=True))
    assert first["candidate"] == "4:8" and first["won / lost"] == "40 / 20"
    assert first["put first by"] == "consensus, decisiveness, boundary"
    last = dict(zip(data["names"], data["rows"][-1], strict=True))
    assert last["race"] == "dropped: worse than 4:8" and last["documents"] == "120"


def test_each_step_of_a_composition_stands_beside_its_held_out_verdict():
    result = sweeps.composed()
    said = " ".join(" ".join(parsed(render_sweep_html(result)).text).split())
    assert "improved +0.120 (+0.050 to +0.190), n 400" in said
    assert "undecided +0.120 (-0.010 to +0.090), n 400" in said
    bare = tuple(step.model_copy(update={"confirmed": None}) for step in result.beam)
    bare = result.model_copy(update={"beam": bare})
    assert "no documents were left" in render_sweep_html(bare) and "none left" in shown(bare)


@pytest.mark.parametrize("stopped", ["all documents", "settled", "undecidable", "time"])
def test_every_reason_to_stop_is_said(stopped):
    result = sweeps.made(stopped=stopped)
    assert STOPPED[stopped] in shown(result) and STOPPED[stopped] in render_sweep_html(result)


def test_hostile_names_are_text():
    result = relabelled(sweeps.composed(), HOSTILE)
    text = render_sweep_html(result)
    page = parsed(text)
    assert len(page.scripts) == 2 and "<script>alert" not in text
    data = json.loads(page.scripts[0])
    assert data["rows"][0][0] == HOSTILE
    assert "alert(1)" in " ".join(page.text)


def test_embedded_json_cannot_leave_its_element():
    value = {"a": [HOSTILE, "]]>", "<!--<script"]}
    text = str(embedded(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_every_block_of_a_deep_model_stays_a_small_page():
    result = sweeps.made(depth=36, sizes=None)
    assert len(result.effects) == 666
    text = render_sweep_html(result)
    parsed(text)
    assert len(text.encode()) < 1_000_000


def test_what_was_not_measured_is_never_nan_on_the_page():
    result = with_gap(sweeps.made(), Block(5, 8))
    text = render_sweep_html(result.model_copy(update={"base_gold": math.nan}))
    assert not re.search(r"\bnan\b", text) and "not measured" in text


def test_the_page_is_the_same_for_the_stored_record():
    result = sweeps.composed()
    again = type(result).from_dict(json.loads(result.to_json()))
    assert render_sweep_html(again) == render_sweep_html(result)


# The terminal


def test_the_table_shows_the_first_the_winner_and_the_front():
    result = sweeps.composed()
    text = shown(result, top=1)
    lines = text.splitlines()
    assert lines[2].split()[:3] == ["4:8", "+", "9:12"]
    on_front = {e.label for e in result.effects if e.pareto}
    assert sum("*" in line for line in lines) == len(on_front) == 3
    assert f"and {len(result.effects) - 3} more" in text
    assert "base 0.500" in text and "undecided +0.120 (-0.010 to +0.090), n 400" in text
    assert "5,600 of 14,000 evaluations (40% of the full grid)" in text
    assert "400 more from the ledger; 37% of the layer passes" in text


def test_predictions_in_the_table_stand_beside_chance():
    line = next(x for x in shown(sweeps.made()).splitlines() if x.startswith("consensus"))
    assert "+0.81, +0.61 to +0.96" in line and "yes 80%" in line
    chance = next(x for x in shown(sweeps.made()).splitlines() if x.startswith("a random block"))
    assert " 4% " in chance and chance.rstrip().endswith("0.160")


def test_a_plain_sweep_has_no_empty_parts():
    text = shown(sweeps.made(race=False, predicted=False, winner=None, ledger=None))
    assert "winner   none" in text
    for absent in ("race", "scorer", "confirm", "blocks together", "ledger  "):
        assert absent not in text, absent


def test_labels_are_no_markup_in_the_table():
    assert "[bold]x[/nothing]" in shown(relabelled(sweeps.made(), "[bold]x[/nothing]"), width=300)


def test_the_table_and_the_page_need_neither_torch_nor_matplotlib():
    code = (
        "import sys, surgeon.report.sweep_tables, surgeon.report.sweep_html\n"
        "print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
