"""The engine against the slow twin: statistics, candidates, rankings."""

import numpy as np
import probe_models
import probe_twin
import pytest

from surgeon.block import all_blocks
from surgeon.checkpoint.store import Checkpoint
from surgeon.probing.engine import ProbeResult, probe
from surgeon.probing.plans import compare_predictions, run_candidates
from surgeon.probing.prompts import Prompts
from surgeon.probing.subject import open_model
from surgeon.probing.sweep import sweep

TEXTS, IDS = probe_models.prompts(), probe_models.ids()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}

    def folder(family, **changes):
        key = (family, repr(sorted(changes.items())))
        if key not in made:
            path = tmp_path_factory.mktemp(family)
            made[key] = probe_models.save_model(path, family, **changes)
        return made[key]

    return folder


def subject_of(folder, ids=IDS, dtype="float32"):
    return open_model(Checkpoint.open(folder), ids, "cpu", dtype)


@pytest.mark.parametrize("family", probe_models.FAMILIES)
def test_statistics_match_the_twin(folders, family):
    folder = folders(family)
    subject = subject_of(folder)
    got = sweep(subject.layers, subject.batches).layer_stats()
    expected = probe_twin.statistics(probe_twin.position_means(probe_twin.load(folder), IDS))
    for name, row in expected.items():
        # atol: a cosine near 0 is a difference of numbers near 1
        np.testing.assert_allclose(
            got.row(name), row, rtol=1e-6, atol=1e-7, err_msg=f"{family} {name}"
        )


# Jamba's config derives the kind of each layer from its number, so the twin cannot repeat one.
@pytest.mark.parametrize("family", sorted(set(probe_models.FAMILIES) - {"jamba"}))
def test_candidates_match_models_whose_layers_were_repeated(folders, family):
    folder = folders(family)
    subject = subject_of(folder)
    blocks = all_blocks(6, (2, 3))
    finals = run_candidates(subject.layers, subject.batches, blocks)
    got = compare_predictions(subject.runner, finals, blocks, 6)
    model = probe_twin.load(folder)
    base = probe_twin.predictions(model, IDS)
    each = np.stack([probe_twin.predictions(model, IDS, b) for b in blocks])

    def entropy(log):
        return -(np.exp(log) * log).sum(-1)

    np.testing.assert_allclose(got.base_entropy, entropy(base), rtol=1e-5)
    np.testing.assert_allclose(got.entropy, entropy(each), rtol=1e-5)
    divergence = (np.exp(base) * (base - each)).sum(-1)
    np.testing.assert_allclose(got.divergence, divergence, rtol=1e-4, atol=1e-6)
    assert (got.agreement == (each.argmax(-1) == base.argmax(-1))).all()
    gram = np.einsum("cpv,dpv->pcd", np.exp(each), np.exp(each))
    np.testing.assert_allclose(got.gram, gram, rtol=1e-4)
    assert np.ptp(got.entropy, axis=0).max() > 1e-4  # the candidates do differ


def test_probe_returns_a_record_that_survives_json(folders):
    prompts = Prompts.of("test", "made up", TEXTS)
    seen = []
    result = probe(folders("llama"), prompts, sizes=(2, 3), report=lambda *step: seen.append(step))
    assert [r.scorer for r in result.rankings] == [
        "stability", "anomaly", "decisiveness", "consensus",
    ]  # fmt: skip
    assert result.tokens == sum(len(t.split()) for t in TEXTS)
    assert result.ranking("anomaly").entries[0].block.stop <= 6
    assert ("probe", 6, 6) in seen
    again = ProbeResult.from_dict(result.to_dict())
    assert again.to_dict() == result.to_dict()
