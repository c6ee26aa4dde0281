"""The bundled tasks: multiple-choice questions drawn from a seed, with no network.

`cups` is the task of the demo models. The others are in plain English and made for real
models; zero-shot, the answer is scored as the continuation of the text after one space.
"""

from surgeon.errors import UnknownName
from surgeon.tasks import arithmetic, cups, deduction, navigation
from surgeon.tasks.documents import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cups",
            "follow a ball through seven or eight learnt shuffles",
            cups.document,
            calibration=cups.any_length,
        ),
        Task("arithmetic", "two to four steps of arithmetic, in words", arithmetic.document),
        Task("deduction", "put three to five objects in order from clues", deduction.document),
        Task(
            "navigation", "does a walk of four to six legs end at its start?", navigation.document
        ),
    )
}
"""Task name -> task."""


def find_task(name: str) -> Task:
    """The bundled task of that name.

    Raises:
        UnknownName: no such task; the message lists the names.
    """
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[name]
