"""Documents on which base and candidate differ, with what each of them answered."""

from typing import Any

from surgeon.report.records import RunRecords
from surgeon.tasks import TASKS
from surgeon.tasks.documents import SPLITS, documents

SHOWN = 8


def flipped(records: RunRecords) -> list[dict[str, Any]]:
    """Groups of flipped documents: those the candidate won, then those it lost.

    Returns:
        For each group a `title`, at most `SHOWN` `documents` and a sentence on the `more`; no
        groups where no per-document results were kept.
    """
    if not records.rows or records.check is None:
        return []
    won = [row for row in records.rows if row["candidate"]["score"] > row["base"]["score"]]
    lost = [row for row in records.rows if row["candidate"]["score"] < row["base"]["score"]]
    splits = {each.task: each.verdict.split for each in records.check.tasks}
    return [
        _group(f"Only the candidate was right: {len(won)}", won, splits),
        _group(f"Only the base was right: {len(lost)}", lost, splits),
    ]


def _group(title: str, rows: list[dict[str, Any]], splits: dict[str, Any]) -> dict[str, Any]:
    more = len(rows) - SHOWN
    return {
        "title": title,
        "documents": [_item(row, splits.get(row["task"])) for row in rows[:SHOWN]],
        "more": f"{more} more are in rows.jsonl." if more > 0 else "",
    }


def _item(row: dict[str, Any], split: str | None) -> dict[str, Any]:
    base, candidate = row["base"], row["candidate"]
    question, choices, gold = _document(row["task"], split, row["doc_id"])
    return {
        "task": row["task"],
        "doc_id": row["doc_id"],
        "question": question,
        "gold": gold,
        "base": _answer(base["chosen"], choices),
        "candidate": _answer(candidate["chosen"], choices),
        "base_right": base["score"] > candidate["score"],
    }


def _document(task: str, split: str | None, doc_id: int) -> tuple[str, tuple[str, ...], str]:
    """Text, choices and right answer; only a bundled task's documents are at hand."""
    if task not in TASKS or split not in SPLITS:
        return f"document {doc_id} of {task}", (), "in the task's own data"
    document = documents(TASKS[task], split)[doc_id]
    return document.text, document.choices, document.choices[document.gold]


def _answer(chosen: Any, choices: tuple[str, ...]) -> str:
    if isinstance(chosen, int) and 0 <= chosen < len(choices):
        return choices[chosen]
    return f"choice {chosen + 1}" if isinstance(chosen, int) else str(chosen)
