"""A worker of a cluster without a cluster, and the executor with a cluster that misbehaves."""

import inspect
from types import SimpleNamespace

import pytest

from surgeon import errors
from surgeon.errors import SurgeonError, UnknownName
from surgeon.evals.engine import Cost
from surgeon.evals.stream import Drawn
from surgeon.hub import resolve
from surgeon.sweeping import ray_cluster
from surgeon.sweeping.ledger import Ledger, Line, Row, Unit
from surgeon.sweeping.measure import Measurements
from surgeon.sweeping.remote import Answer, Errand, Failed, RemoteWorker, difference, total
from surgeon.sweeping.work import Setting, Worker


@pytest.fixture(scope="module")
def setting():
    return Setting(
        model=str(resolve("demo:planted").path),
        tasks=("cups",),
        split="select",
        device="cpu",
        dtype="float32",
        memory=2**30,
    )


@pytest.fixture(scope="module")
def inputs(setting):
    return setting.inputs(setting.load_tasks())


ERRORS = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_travel(kind):
    if kind is UnknownName:
        error = UnknownName("task", "cup", ["cups", "marks"])
    else:
        error = kind("the fact `1`", hint="do that")
    back = Failed.of(error).error
    assert type(back) is kind
    assert (str(back), back.hint, back.exit_code) == (str(error), error.hint, error.exit_code)


def test_answers_are_those_of_a_worker_here(setting, inputs):
    errand = Errand(setting, inputs)
    remote, here = RemoteWorker(), Worker(setting)
    assert remote.start(errand.versions(), errand.packed()) is None
    units = [
        Unit((":", ":8,4:"), (Drawn("cups", 0), Drawn("cups", 5))),
        Unit((":",), (Drawn("cups", 1),)),
    ]
    spent = Cost()
    for unit in units:
        answer = remote.answer(unit)
        assert answer.lines == here.answer(unit)
        spent = total(spent, answer.cost)
    assert spent == here.cost
    assert difference(spent, spent).layer_forwards == 0


def test_a_node_with_other_versions_is_refused_before_anything_is_read(setting, inputs):
    errand = Errand(setting, inputs)
    versions = {**errand.versions(), "torch": "1.0", "surgeon": "99"}
    failed = RemoteWorker().start(versions, b"of that version")
    assert "torch " in failed.message and "instead of 1.0" in failed.message
    assert "instead of 99" in failed.message and "transformers" not in failed.message


def test_a_node_without_the_folder_is_refused(setting, inputs, tmp_path):
    missing = Setting(**{**vars(setting), "model": str(tmp_path / "elsewhere")})
    errand = Errand(missing, inputs)
    failed = RemoteWorker().start(errand.versions(), errand.packed())
    assert "cannot read the folder" in failed.message and str(missing.model) in failed.message
    assert "share" in failed.hint


@pytest.mark.parametrize("name", ["model", "tokenizer", "tasks"])
def test_a_node_with_something_else_is_refused(setting, inputs, name):
    errand = Errand(setting, {**inputs, name: "something else"})
    failed = RemoteWorker().start(errand.versions(), errand.packed())
    assert f"another {name} for" in failed.message


class LostWorker(Exception):
    pass


class TaskFailed(Exception):
    cause = ZeroDivisionError("in the worker")


class StubRay:
    """As much of ray as the executor uses; each call of a worker is answered by a script."""

    class exceptions:
        RayActorError = LostWorker
        WorkerCrashedError = NodeDiedError = OutOfMemoryError = ObjectLostError = LostWorker
        RayTaskError = TaskFailed

    def __init__(self, answer, start=lambda: None, cpus=2.0, memory=2.0**40):
        self.script = {"answer": answer, "start": start}
        self.node = {"Alive": True, "Resources": {"CPU": cpus, "memory": memory}}
        self.made, self.killed, self.ended, self.most = 0, 0, False, 0
        self.pending = 0

    def remote(self, actor):
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._actor))

    def _actor(self):
        self.made += 1
        call = lambda name: SimpleNamespace(  # noqa: E731
            remote=lambda *given: self._call(name, *given)
        )
        return SimpleNamespace(start=call("start"), answer=call("answer"))

    def _call(self, name, *given):
        self.pending += 1
        self.most = max(self.most, self.pending)
        return object_reference(name, given)

    def wait(self, pending, timeout):
        return pending[-1:], pending[:-1]

    def get(self, reference):
        self.pending -= 1
        found = self.script[reference.name](
            *(reference.given if reference.name == "answer" else ())
        )
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self, actor, no_restart):
        assert no_restart
        self.killed += 1

    def nodes(self):
        return [self.node, {"Alive": False, "Resources": {"CPU": 64.0, "memory": 2.0**40}}]

    def cluster_resources(self):
        return self.node["Resources"]

    available_resources = cluster_resources

    def shutdown(self):
        self.ended = True


class object_reference:
    def __init__(self, name, given):
        self.name, self.given = name, given


def rows_of(unit):
    documents = tuple(each.doc_id for each in unit.documents)
    rows = tuple(Row(1.0, -0.5, 1) for _ in documents)
    return Answer(
        [Line(p, "cups", documents, rows) for p in unit.plans], Cost(1, 2, 3, 4, 5, 6), ()
    )


UNITS = [Unit((":", ":8,4:"), (Drawn("cups", at),)) for at in range(6)]


@pytest.fixture
def finish(monkeypatch, setting, inputs, tmp_path):
    def call(stub, stop=lambda: False, ours=True):
        monkeypatch.setattr(ray_cluster, "connect", lambda address: (stub, ours))
        executor = ray_cluster.RayExecutor(setting, inputs, "head:1")
        ledger = Ledger(tmp_path / "stub.jsonl", inputs)
        try:
            executor.finish(ledger, UNITS, stop)
            return executor, [unit for unit in UNITS if not ledger.missing(unit)]
        finally:
            executor.close()
            with Ledger(tmp_path / "stub.jsonl", inputs).claim(UNITS[0]) as free:
                assert free
            ledger.close()

    return call


def test_lost_workers_are_replaced_and_their_units_given_to_others(finish):
    times = iter(range(100))
    stub = StubRay(lambda unit: LostWorker("gone") if next(times) in (0, 3) else rows_of(unit))
    executor, done = finish(stub)
    assert done == UNITS
    assert executor.evaluations == 12  # two plans, six documents
    assert executor.cost == Cost(6, 12, 18, 24, 30, 6)
    assert executor.notes == ["workers lost while they measured: 2; others did their part"]
    assert stub.killed == stub.made and stub.made >= 4
    assert stub.most <= 2 and executor.workers == 2
    assert stub.ended


def test_a_unit_is_not_tried_for_ever(finish):
    bad = UNITS[2]
    stub = StubRay(lambda unit: LostWorker("no memory\nmore") if unit == bad else rows_of(unit))
    with pytest.raises(SurgeonError, match=r"died 4 times at the same work: no memory$"):
        finish(stub)
    assert stub.killed == stub.made


def test_workers_that_die_while_they_load_are_not_started_for_ever(finish):
    stub = StubRay(rows_of, start=lambda: LostWorker("killed"))
    with pytest.raises(SurgeonError, match="died 7 times"):
        finish(stub)
    assert stub.killed == stub.made


def test_an_error_of_a_worker_is_raised_here(finish):
    stub = StubRay(lambda unit: Failed("UnsupportedModel", "the fact", "do that"))
    with pytest.raises(errors.UnsupportedModel, match="the fact") as found:
        finish(stub)
    assert found.value.hint == "do that"
    with pytest.raises(ZeroDivisionError, match="in the worker"):
        finish(StubRay(lambda unit: TaskFailed()))


@pytest.mark.parametrize("kind", [TaskFailed, LostWorker])
def test_a_node_that_cannot_import_surgeon_is_named_as_such(finish, kind):
    stub = StubRay(rows_of, start=lambda: kind("The actor failed to import on the worker"))
    with pytest.raises(SurgeonError, match="cannot import surgeon"):
        finish(stub)


def test_a_stop_is_heard_after_each_unit_and_the_rest_let_go(finish):
    asked = iter(range(100))
    stub = StubRay(rows_of)
    _, done = finish(stub, stop=lambda: next(asked) == 1)
    assert len(done) == 2
    assert stub.killed == stub.made


@pytest.mark.parametrize("resources", [{"cpus": 0.0}, {"memory": 2.0**20}])
def test_a_cluster_without_room_is_an_error_and_not_a_wait(finish, monkeypatch, resources):
    monkeypatch.setattr(ray_cluster, "ROOM_SECONDS", 0.05)
    stub = StubRay(rows_of, **resources)
    stub.wait = lambda pending, timeout: ([], pending)
    with pytest.raises(SurgeonError, match=r"no worker .* was ready .* one takes CPU 1 of "):
        finish(stub)


def test_memory_bounds_the_workers_of_a_node(finish):
    stub = StubRay(rows_of, cpus=64.0, memory=7.0 * 2**30)
    executor, _ = finish(stub)
    assert executor.workers == 3  # a gibibyte for states, one for the process, and the weights


def test_a_connection_of_the_caller_is_left_open(finish):
    stub = StubRay(rows_of)
    finish(stub, ours=False)
    assert not stub.ended and stub.killed == stub.made


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_watched_does_not_depend_on_the_order_of_answers(inputs, tmp_path, order):
    documents = [Drawn("cups", at) for at in range(150)]
    seen = []

    class Backwards:
        def finish(self, ledger, units, stop):
            for unit in units[::order]:
                ledger.append(rows_of(unit).lines)
                stop()

    ledger = Ledger(tmp_path / "order.jsonl", inputs)
    measurements = Measurements(ledger, Backwards(), depth=12)
    assert measurements.finish([], documents, lambda done, total: bool(seen.append(done))) == 150
    assert sorted(set(seen)) == [0, 64, 128, 150]
    assert seen == sorted(seen)
