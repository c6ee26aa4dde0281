"""A measured cost in words: for the terminal, the page, the summary and the card."""

from collections.abc import Callable

from surgeon.cost.result import Cost, ModelCost, Spread


def cost_line(cost: Cost) -> str:
    """The candidate against its base in one line."""
    if cost.missing is not None:
        return f"not measured: {cost.missing}"
    assert cost.base and cost.candidate and cost.prefill_ratio and cost.decode_ratio
    weights = cost.candidate.weights / cost.base.weights
    return (
        f"{cost.decode_ratio.median:.2f}x tokens/s in decoding "
        f"({_rate(cost.base.decode.median)} -> {_rate(cost.candidate.decode.median)}), "
        f"{cost.prefill_ratio.median:.2f}x in prefill; {weights:.2f}x weights"
        f"{'; the machine was busy, so the rates say little' if cost.disturbed else ''}"
    )


def cost_rows(cost: Cost) -> list[tuple[str, str, str, str]]:
    """What was measured, its value for base and candidate, and the candidate's ratio.

    Rates come with their range over the repeats; so do the ratios of rates.
    """
    if cost.missing is not None:
        return []
    base, candidate = cost.base, cost.candidate
    assert base and candidate and cost.prefill_ratio and cost.decode_ratio
    megabytes: list[tuple[str, Callable[[ModelCost], int]]] = [
        ("weights as loaded, MB", lambda model: model.weights),
        ("peak memory, MB", lambda model: model.peak),
    ]
    if base.idle:
        megabytes.append(
            ("peak memory above an empty process, MB", lambda model: model.peak - model.idle)
        )
    return [
        ("decode, tokens/s", *_rates(base.decode, candidate.decode, cost.decode_ratio)),
        ("prefill, tokens/s", *_rates(base.prefill, candidate.prefill, cost.prefill_ratio)),
        *((name, *_sizes(size(base), size(candidate))) for name, size in megabytes),
    ]


def cost_method(cost: Cost) -> list[str]:
    """How it was measured and how far to trust it, or why it was not; in paragraphs."""
    if cost.missing is not None:
        return [f"Tokens per second and memory were not measured: {cost.missing}."]
    assert cost.base
    count = len(cost.base.decode.values)
    turns = f"{count} turns of each" if count > 1 else "1 turn of each"
    threads = "" if cost.device.startswith("cuda") else f", {_threads(cost.threads)}"
    measured = (
        f"Measured with transformers' own generate on {cost.machine} ({cost.device}{threads}, "
        f"{cost.dtype}): batch {cost.batch}, {cost.prompt} random prompt tokens, {cost.tokens} "
        f"new ones, greedy; {turns}, base and candidate alternating, "
        f"{'after one uncounted' if cost.warm else 'without a warm-up'}. Medians, with the "
        "lowest and highest; ratios are taken within each pair of turns. Peak memory is the "
        f"{cost.memory}."
    )
    if not cost.disturbed:
        return [measured]
    return [
        measured,
        f"Other work kept {cost.others:.1f} processors busy meanwhile: the rates are too low, "
        "and their ratio says little. Memory is not affected. Delete cost.json and run again "
        "on a quiet machine.",
    ]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads that sleep while they wait"


def _rates(base: Spread, candidate: Spread, ratio: Spread) -> tuple[str, str, str]:
    return _ranged(base, _rate), _ranged(candidate, _rate), _ranged(ratio, lambda x: f"{x:.2f}x")


def _ranged(spread: Spread, form: Callable[[float], str]) -> str:
    if len(spread.values) == 1:
        return form(spread.median)
    return f"{form(spread.median)} ({form(spread.low)} to {form(spread.high)})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sizes(base: int, candidate: int) -> tuple[str, str, str]:
    ratio = f"{candidate / base:.2f}x" if base > 0 else "-"
    return f"{base / 1e6:,.1f}", f"{candidate / 1e6:,.1f}", ratio
