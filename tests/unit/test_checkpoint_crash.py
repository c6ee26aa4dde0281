"""Kill the process, or let a system call fail, at every single step of a write.

All changes of the disk go through `checkpoint.disk`; a forked child counts the calls and dies
at (or halfway through) the k-th. Whatever k is: OUT is absent or complete, the source is
untouched, and the same command run again finishes and leaves nothing behind.
"""

import errno
import os
import signal

import pytest
from checkpoints import tree, write_model

from surgeon.block import Block
from surgeon.checkpoint import disk
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan

PLAN = LayerPlan.duplicate(4, Block(1, 3))
CALLS = (
    "create", "allocate", "bypass_cache", "use_cache", "write", "sync", "sync_folder", "link",
    "make_folder", "rename", "exchange", "remove_file", "remove_tree",
)  # fmt: skip


def agree(before, after, plan):
    return "structure: not looked at in this test"


def run(tmp_path, **options):
    return duplicate(
        Checkpoint.open(tmp_path / "model"), PLAN, tmp_path / "out", verifier=agree, **options
    )


def patched(monkeypatch, act):
    """Call `act(number, name, call, arguments)` instead of each mutating call."""
    number = 0

    def wrap(name, call):
        def wrapper(*arguments):
            nonlocal number
            number += 1
            return act(number, name, call, arguments)

        return wrapper

    for name in CALLS:
        monkeypatch.setattr(disk, name, wrap(name, getattr(disk, name)))


def in_child(work):
    """The wait status of a forked child that runs `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A model of four shards, and small buffers, so that there are many steps."""
    write_model(tmp_path / "model", shards=4)
    (tmp_path / "model" / "tokenizer.json").write_text('{"a": 1}')
    monkeypatch.setattr(disk, "BUFFER", 256)
    # The calls are counted and stopped at all the same; a kill does not need a quiet disk.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return tmp_path


def count_steps(world, options):
    steps = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        patched(monkeypatch, lambda k, name, call, args: (steps.append(name), call(*args))[1])
        run(world, **options)
    complete = tree(world / "out")
    return steps, complete


OPTIONS = {
    "copied": {},
    "linked": {"link": "hard"},
    "replacing": {"force": True},
}


def prepare(world, options):
    """OUT before the run: nothing, or an old model."""
    import shutil

    for path in [*world.glob("out"), *world.glob(".out*")]:
        shutil.rmtree(path)
    if options.get("force"):
        write_model(world / "out")
    return tree(world / "out") if (world / "out").exists() else None


def kill_at(stop, torn):
    def act(number, name, call, arguments):
        if number == stop:
            if torn and name == "write":
                handle, data, at = arguments
                call(handle, data[: len(data) // 2], at)
            elif torn:
                call(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    return act


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_killed_at_every_step(world, options, torn):
    source = tree(world / "model")
    prepare(world, options)
    steps, complete = count_steps(world, options)
    assert len(steps) >= 60
    for stop in range(1, len(steps) + 1):
        old = prepare(world, options)

        def work(stop=stop):
            with pytest.MonkeyPatch.context() as monkeypatch:
                patched(monkeypatch, kill_at(stop, torn))
                run(world, **options)

        assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
        left = tree(world / "out") if (world / "out").exists() else None
        assert left in (old, complete), f"killed at step {stop} ({steps[stop - 1]})"
        if left is None or options.get("force"):
            run(world, **options)
        assert tree(world / "out") == complete
        assert tree(world / "model") == source
        assert sorted(p.name for p in world.iterdir() if p.name != ".out.surgeon") == [
            "model",
            "out",
        ]


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_call_fails_once(world, options, code):
    source = tree(world / "model")
    prepare(world, options)
    steps, complete = count_steps(world, options)
    for stop in range(1, len(steps) + 1):
        old = prepare(world, options)

        def act(number, name, call, arguments, stop=stop):
            if number == stop:
                raise OSError(code, os.strerror(code))
            return call(*arguments)

        with pytest.MonkeyPatch.context() as monkeypatch:
            patched(monkeypatch, act)
            with pytest.raises(SurgeonError) as caught:
                run(world, **options)
        left = tree(world / "out") if (world / "out").exists() else None
        assert left in (old, complete), f"failed at step {stop} ({steps[stop - 1]})"
        said_complete = "is complete, but" in str(caught.value)
        assert said_complete == (left == complete), caught.value
        assert tree(world / "model") == source
        if left is None or options.get("force"):
            run(world, **options)
        assert tree(world / "out") == complete


def test_finished_files_are_not_written_again(world):
    steps, complete = count_steps(world, {})
    prepare(world, {})

    def work():
        with pytest.MonkeyPatch.context() as monkeypatch:
            patched(monkeypatch, kill_at(len(steps) - 20, False))
            run(world)

    in_child(work)
    more = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        patched(monkeypatch, lambda k, name, call, args: (more.append(name), call(*args))[1])
        run(world)
    assert more.count("write") < steps.count("write") / 2
    assert tree(world / "out") == complete


def test_an_interrupt_keeps_what_is_finished(world):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, on_bytes=stop)
    assert (world / ".out.surgeon").is_dir() and not (world / "out").exists()
    run(world)
    assert sorted(path.name for path in world.iterdir()) == ["model", "out"]


def test_what_another_run_left_is_not_mixed_in(world):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, on_bytes=stop)
    (world / ".out.surgeon" / "model.safetensors").write_bytes(b"stale")
    other = LayerPlan.duplicate(4, Block(0, 1))
    duplicate(Checkpoint.open(world / "model"), other, world / "out", verifier=agree)
    assert not (world / "out" / "model.safetensors").exists()


def test_two_runs_at_once(world):
    with pytest.raises(SurgeonError, match="another run is writing"):
        run(world, on_bytes=lambda done: run(world))


def test_old_model_waits_aside_where_folders_cannot_be_swapped(world, monkeypatch):
    def cannot(one, other):
        raise OSError(errno.EINVAL, "cannot")

    monkeypatch.setattr(disk, "exchange", cannot)
    prepare(world, {"force": True})
    run(world, force=True)
    assert Checkpoint.open(world / "out").depth == 6
    assert sorted(path.name for path in world.iterdir()) == ["model", "out"]
