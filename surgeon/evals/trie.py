"""Layer trie: layer plans as a prefix tree, so a shared prefix of layers runs once.

Each node is one layer forward. Plans that begin with the same layers share those nodes, so
a base and the plans derived from it cost `nodes` layer forwards instead of `naive`.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from surgeon.plan import LayerPlan

Key = TypeVar("Key", bound=Hashable)
State = TypeVar("State")


@dataclass
class _Node(Generic[Key]):
    children: dict[int, "_Node[Key]"] = field(default_factory=dict)
    ends: list[Key] = field(default_factory=list)
    size: int = 0


class LayerTrie(Generic[Key]):
    """Prefix tree over named layer plans.

    Args:
        plans: plan per name; names are what `walk` reports.

    Attributes:
        nodes: layer forwards that one pass over all plans costs.
        naive: layer forwards of the same plans, each run alone.
    """

    def __init__(self, plans: Mapping[Key, LayerPlan]):
        self._root: _Node[Key] = _Node()
        self.naive = sum(len(plan) for plan in plans.values())
        for name, plan in plans.items():
            node = self._root
            for layer in plan.layers:
                node = node.children.setdefault(layer, _Node())
            node.ends.append(name)
        self.nodes = self._measure(self._root) - 1

    def _measure(self, root: _Node[Key]) -> int:
        """Fill in subtree sizes without recursion (plans may be deep) and return the root's."""
        order = [root]
        for node in order:
            order.extend(node.children.values())
        for node in reversed(order):
            node.size = 1 + sum(child.size for child in node.children.values())
        return root.size

    def walk(
        self,
        start: State,
        step: Callable[[int, State], State],
        arrive: Callable[[Key, State], None],
    ) -> int:
        """Run every plan once, depth first.

        The largest subtree of a node is entered last, when the node's own state is no
        longer needed; at most about log2(nodes) states are alive at any time.

        Args:
            start: state before the first layer.
            step: (layer, state) -> state after the layer; must not change its input.
            arrive: called with (name, state) where a plan ends.

        Returns:
            The largest number of states that were alive at once.
        """
        stack: list[tuple[_Node[Key], int | None, State]] = [(self._root, None, start)]
        most = 1
        while stack:
            node, layer, state = stack.pop()
            if layer is not None:
                state = step(layer, state)
            for name in node.ends:
                arrive(name, state)
            # The stack pops from its end, so the largest child goes in first.
            order = sorted(node.children.items(), key=lambda item: -item[1].size)
            stack.extend((child, below, state) for below, child in order)
            most = max(most, len({id(entry[2]) for entry in stack}))
        return most
