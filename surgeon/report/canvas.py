"""What all figures share: matplotlib without a window system, and quiet axes."""

from typing import TYPE_CHECKING, Any

from surgeon.errors import SurgeonError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_class() -> type["Figure"]:
    """The Figure class; no pyplot, so no display and no global state.

    Raises:
        SurgeonError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SurgeonError(
            "matplotlib is not installed", hint="pip install 'surgeon[plots]'"
        ) from error
    return Figure


def quiet(axes: Any, colour: str) -> None:
    """Small ticks in a colour, and lines on two sides only."""
    axes.tick_params(labelsize=8, colors=colour, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#bbbbbb")
