"""Find the stages of a network in its graph alone: from a plain GraphDef to plain names.

A cut is a tensor that all data passes through on its way from the input to the output. Cuts are
found in one pass over the topological order: a place is a cut if no earlier tensor is still needed
later. A weight belongs to the segment in which it is first read. Segments are then grouped into the
blocks that a person would name: by the names of their operations if these tell the blocks
("block3", "conv2_block1"), else by the places where branches join again (residual additions,
concatenations), else, in a plain chain, by the layers that own a kernel. What comes before a block
belongs to it, and what follows the last block belongs to the last block.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
JOINS = frozenset({"Add", "AddV2", "AddN", "ConcatV2", "Concat"})
SCOPE = re.compile(
    r"^(?:.*[_.])?(?:block|layer|stage|unit|bottleneck|group|module|mixed|cell)s?[_.]?\d+[a-z]?$",
    re.IGNORECASE,
)
FLAT = re.compile(
    r"^(.*?block_?\d+[a-z]?|expanded_conv(?:_\d+)?|mixed_?\d+(?:_\d+)?)(?=[_.]|$)", re.IGNORECASE
)


ONLY_ONE = (
    "it has one stage only: no single tensor inside carries all data from one part to the next, "
    "so it can be trained as a whole or not at all"
)


@dataclass(frozen=True)
class Stage:
    """A part of the network from one cut to the next.

    Args:
        cut: name of the tensor that it ends in.
        weights: numbers of the weights that are first read in it.
    """

    name: str
    cut: str
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """What lies between two neighbouring cuts.

    Args:
        cut: its last tensor.
        joined: whether branches join in it.
        weights: names of its weights.
        blocks: the blocks that the names of its nodes tell.
    """

    cut: str
    joined: bool
    weights: tuple[str, ...]
    blocks: tuple[str, ...]


def nodes_of(graph: GraphDef) -> Iterator[NodeDef]:
    """Yield all nodes of a graph and of its functions."""
    yield from graph.node
    for one in graph.library.function:
        yield from one.node_def


def node_of(tensor: str) -> str:
    """Return the name of the operation that computes a tensor."""
    return tensor.split(":")[0]


def with_port(tensor: str) -> str:
    """Return the name of a tensor with the number of the output; 0 where there is none."""
    return tensor if ":" in tensor else f"{tensor}:0"


def data_inputs(node) -> list[str]:
    """Names of the nodes that `node` takes data from, without control edges."""
    return [node_of(name) for name in node.input if not name.startswith("^")]


def reach(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    """All names that can be reached from `start` by `step`."""
    seen: set[str] = set()
    frontier = list(start)
    while frontier:
        name = frontier.pop()
        if name not in seen:
            seen.add(name)
            frontier.extend(step(name))
    return seen


def segments(
    graph: GraphDef, start: str, end: str, weights: frozenset[str], *, aside: bool = False
) -> list[Segment]:
    """The segments of `graph` that end in its cuts between the nodes `start` and `end`, in order.

    Each has the weights (names of nodes) that were read since the cut before.

    Args:
        aside: see `find_stages`.
    """
    nodes = {node.name: node for node in graph.node}
    users: dict[str, list[str]] = {}
    for node in graph.node:
        for name in data_inputs(node):
            users.setdefault(name, []).append(node.name)
    path = reach([start], lambda a: [b for b in users.get(a, []) if nodes[b].op not in SHAPE_ONLY])
    path &= reach([end], lambda a: data_inputs(nodes[a]))
    if aside:
        path &= reach(weights, lambda a: users.get(a, []))
    before = {a: {b for b in data_inputs(nodes[a]) if b in path} for a in path}
    after = {a: [b for b in dict.fromkeys(users.get(a, [])) if b in path] for a in path}
    starts = [a for a in path if not before[a]] if aside else [start]
    order = topological(sorted(starts), before, after)
    place = {a: i for i, a in enumerate(order)}
    last_use = {a: max((place[b] for b in after[a]), default=place[a]) for a in order}
    parts, live, owned, taken, joined, blocks = (
        [],
        set[str](),
        list[str](),
        set[str](),
        False,
        list[str](),
    )
    for i, a in enumerate(order):
        side = reach(
            data_inputs(nodes[a]),
            lambda b: [] if b in path or b in weights else data_inputs(nodes[b]),
        )
        owned += sorted((side & weights) - taken)
        taken |= side & weights
        joined = joined or (nodes[a].op in JOINS and len(before[a]) > 1)
        blocks += [block] if (block := block_name(a)) else []
        live = {b for b in live if last_use[b] > i}
        if not live:
            parts.append(Segment(cut=a, joined=joined, weights=tuple(owned), blocks=tuple(blocks)))
            owned, joined, blocks = [], False, []
        if last_use[a] > i:
            live.add(a)
    if owned and parts:
        parts[-1] = replace(parts[-1], weights=parts[-1].weights + tuple(owned))
    return parts


def topological(
    starts: list[str], before: dict[str, set[str]], after: dict[str, list[str]]
) -> list[str]:
    """Depth-first topological order from `starts`; nodes on a loop are left out."""
    waiting, ready, order = {a: len(b) for a, b in before.items()}, starts[::-1], []
    while ready:
        a = ready.pop()
        order.append(a)
        for b in after[a]:
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    return order


def execution_order(graph: GraphDef) -> list[str]:
    """The names of all nodes in topological order over data and control edges.

    Nodes on a loop are left out.
    """
    names = {node.name for node in graph.node}
    before = {
        node.name: {name.lstrip("^").split(":")[0] for name in node.input} & names
        for node in graph.node
    }
    after: dict[str, list[str]] = {name: [] for name in before}
    for name, inputs in before.items():
        for each in sorted(inputs):
            after[each].append(name)
    return topological([name for name, inputs in before.items() if not inputs], before, after)


def block_name(node: str) -> str | None:
    """The block that the scopes of an operation's name tell; None if they tell none.

    The innermost scope that tells a block counts.
    """
    scopes = node.split("/")[:-1] or [node]
    for depth in range(len(scopes), 0, -1):
        if SCOPE.match(scopes[depth - 1]):
            return "/".join(scopes[:depth])
        if flat := FLAT.match(scopes[depth - 1]):
            return "/".join([*scopes[: depth - 1], flat.group(1)])
    return None


@dataclass(frozen=True)
class Read:
    """The node that reads a weight: the weight's number, and the rank of its value."""

    number: int
    rank: int


def find_stages(
    graph: GraphDef, start: str, end: str, weights: dict[str, Read], *, aside: bool = False
) -> tuple[Stage, ...]:
    """Find the stages from input to output.

    Args:
        graph: nodes with all functions inlined.
        start, end: names of the input node and of the node that holds the last map (or the output).
        weights: what each node reads, by its name.
        aside: whether what depends on the input alone, without weights, may be needed behind a cut.
            In networks for texts this tells every block which positions are padding.

    Returns:
        At least one stage; every weight that lies on the way is in exactly one.
    """
    parts = segments(graph, start, end, weights=frozenset(weights), aside=aside)
    last = {name: i for i, part in enumerate(parts) if (name := block_name(part.cut))}
    named, joined = {i: name for name, i in last.items()}, find_joins(parts, weights)
    # If branches join more often than names change at a cut, the blocks end at the joins:
    # ConvNeXt's additions do not carry the name of a block.
    ends = max(named, joined, key=len)
    if aside and len(named) > 1:
        ends = named  # branches join twice in each block of a transformer
    names = shorten_names(ends if len(ends) > 1 else kernels(parts, weights))
    return group(parts, names, end, weights=weights)


def shorten_names(ends: dict[int, str]) -> dict[int, str]:
    """Shorten names to the fewest last scopes that still tell all of them apart."""
    longest = max((name.count("/") for name in ends.values()), default=0) + 1
    # Keras numbers the second trace of a network: `mixed0_1` is `mixed0`.
    again = all(name.endswith("_1") for name in ends.values())
    for length in range(1, longest + 1):
        short = {
            i: "/".join(name.removesuffix("_1" if again else "").split("/")[-length:])
            for i, name in ends.items()
        }
        if len(set(short.values())) == len(ends):
            return short
    return {i: f"{name}#{i}" for i, name in ends.items()}


def find_joins(parts: list[Segment], weights: dict[str, Read]) -> dict[int, str]:
    """Blocks that end where branches join after a kernel, named as most of their nodes say."""
    ends, kernel, blocks = {}, False, Counter[str]()
    for i, part in enumerate(parts):
        kernel = kernel or any(weights[name].rank > 1 for name in part.weights)
        blocks.update(part.blocks)
        if part.joined and kernel:
            ends[i] = blocks.most_common(1)[0][0] if blocks else scope(part.cut)
            kernel, blocks = False, Counter()
    return ends


def kernels(parts: list[Segment], weights: dict[str, Read]) -> dict[int, str]:
    """Blocks of a plain chain, each of which ends just before the next kernel.

    The addition and the activation that follow a kernel belong to its block.
    """
    owners = [
        i for i, part in enumerate(parts) if any(weights[name].rank > 1 for name in part.weights)
    ]
    return {
        after - 1: scope(parts[i].cut)
        for i, after in zip(owners, [*owners, len(parts)][1:], strict=True)
    }


def scope(node: str) -> str:
    return node.rpartition("/")[0] or node


def group(
    parts: list[Segment], ends: dict[int, str], end: str, *, weights: dict[str, Read]
) -> tuple[Stage, ...]:
    """Return the stages: the segments up to each of `ends`; the last one has all that follows."""
    stages, owned = [], list[int]()
    for i, part in enumerate(parts):
        owned += [weights[name].number for name in part.weights]
        if i in ends:
            stages.append(Stage(name=ends[i], cut=f"{part.cut}:0", weights=tuple(owned)))
            owned = []
    if not stages:
        return (Stage(name="all", cut=f"{end}:0", weights=tuple(owned)),)
    last = stages[-1]
    stages[-1] = replace(last, cut=f"{end}:0", weights=last.weights + tuple(owned))
    return tuple(stages)


def merge_stages(stages: tuple[Stage, ...], usable: list[bool]) -> tuple[Stage, ...]:
    """Merge each stage that does not end in a usable cut with the next one.

    The cut of the last stage always counts as usable.
    """
    result, owned = list[Stage](), tuple[int, ...]()
    for i, (stage, good) in enumerate(zip(stages, usable, strict=True)):
        owned += stage.weights
        if good or i == len(stages) - 1:
            result.append(replace(stage, weights=owned))
            owned = ()
    return tuple(result)
