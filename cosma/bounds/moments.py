"""What must be alive at the moment before the first element of an operator's result is complete.

Nothing of that result exists then, nor of what needs it; all that the element needs does. Between the two lie results
of which the plan chooses how far they have come. On every way from an element that is complete to one that is not, some
element is complete and still needed, or some partial sum has begun: it is *alive*. A weight that has been used either
is alive, or will not be used again, and then every sum that it is part of has begun. So what is alive is a cut of a
network of tensors, sums and weights, which an even flow through the network measures.
"""

from __future__ import annotations

from math import prod

from cosma.bounds.couplings import least_span, met_by_taps, share_of_taps, through_views
from cosma.bounds.dependences import Dependences, HeldWeight, Need
from cosma.bounds.ways import SINK, SOURCE, Build, Moment, pruned

#: Operators before one whose weights are looked at, and whose needs are: work is linear in long networks; not measured.
_WEIGHTS_BEFORE, _NEEDS_BEFORE = 96, 512
#: Operators behind one that are looked at for one that needs all of it; not measured.
_LOOK_AHEAD = 16


class Moments:
    """Builds the moments of a network.

    Parameters
    ----------
    net
        The network.
    """

    def __init__(self, net: Dependences) -> None:
        self.net = net
        self._spans: dict[tuple[int, int, int, int], int] = {}
        self._covered: dict[int, frozenset[str]] = {}
        above = [1 << v for v in range(len(net.work))]
        for v, work in enumerate(net.work):
            for need in work.needs:
                if need.tensor in net.maker:
                    above[v] |= above[net.maker[need.tensor]]
        #: For each operator, a bit for each that is complete once all of its own result is.
        self.above = above
        below = [0] * len(net.work)
        for v in reversed(range(len(net.work))):
            below[v] |= 1 << v
            for need in net.work[v].needs:
                maker = net.maker.get(need.tensor)
                if maker is not None:
                    below[maker] |= below[v]
            whole = net.work[v].parts_of
            if whole is not None and whole in net.maker:
                below[net.maker[whole]] |= below[v]
        #: For each operator, a bit for each of which no element is complete before one of its own is.
        self.below = below
        #: Operators that multiply by the same weight, if there are several.
        self.sharing: dict[str, list[int]] = {}
        for v, work in enumerate(net.work):
            if work.weight is not None and not _is_convolution(work.weight):
                self.sharing.setdefault(work.weight.tensor, []).append(v)
        self.sharing = {name: users for name, users in self.sharing.items() if len(users) > 1}

    def moment(self, operator: int) -> Moment:
        """Build the network of one moment, without what no flow can reach."""
        extents = self._needed(operator)
        fused = self.net.fused[operator]
        used = self._used(operator, extents)
        complete = {
            name for name, extent in extents.items()
            if tuple(extent) == self.net.shape[name]
            and (name in used if name not in self.net.maker else not fused >> self.net.maker[name] & 1)
        }
        build = Build(self.net, self.below[operator], complete)
        build.found.operator = operator
        for name in sorted(complete):
            if build.reach_tensor(name):
                build.found.arcs[SOURCE, ("tensor", name)] = None
        makers = {self.net.maker[name] for name in extents if name in self.net.maker}
        for v in sorted(v for v in makers if v >= operator - _WEIGHTS_BEFORE and not fused >> v & 1):
            weight = self.net.work[v].weight
            results = self.net.work[v].results
            if weight is None or all(name in complete for name in results):
                continue
            if self._uses_all_weights(v, extents):
                self._add_weight(build, v, weight, extents[results[0]])
        for tensor, users in self.sharing.items():
            self._hold(build, tensor, users)
        found = build.finish()
        found.arcs = pruned(found.arcs)
        return found

    def _hold(self, build: Build, tensor: str, users: list[int]) -> None:
        """A weight that one operator has used wholly, and another needs that has nothing to multiply by it yet."""
        net, node = self.net, ("weight", tensor)
        used_by = frozenset(v for v in users if build.complete.issuperset(net.work[v].results))
        waits_for = frozenset(
            v for v in users
            for need in net.work[v].needs
            # A weight stands behind the first operand, of which every product has an element. All of that operand must
            # be one tensor that is known: of one that is joined, other pieces may be complete.
            if need.site is self._weight_of(v).site and need.position == 0 and need.seen == need.site.shape(0)
            and need.tensor in net.maker and build.below >> net.maker[need.tensor] & 1
        )  # fmt: skip
        if used_by and waits_for:
            build.found.room[node] = self._weight_of(users[0]).size_bytes
            build.found.share.pop(node, None)
            build.found.arcs |= {(SOURCE, node): None, (node, SINK): None}
            build.found.used_by[node], build.found.waits_for[node] = used_by, waits_for

    def _weight_of(self, v: int) -> HeldWeight:
        weight = self.net.work[v].weight
        assert weight is not None
        return weight

    def midway(self, tensor: str, share: float) -> Moment | None:
        """The moment when a share of a tensor's elements, along the axis that its readers sum over, is used up.

        Its other elements wait for weights that nothing has used, if they exist; if not, the sums that need them all
        are not complete. Of the weights that go with the share all have been used.
        """
        net = self.net
        readers = [(v, net.work[v].needs[place]) for v, place in net.readers.get(tensor, ())]
        readers = [(v, need) for v, need in readers if self._sums_over(v, need)]
        if not readers or tensor not in net.maker:
            return None
        need = readers[0][1]
        axes = _summed(need)
        count = need.seen[axes[0]]
        if any(other.seen != need.seen or _summed(other) != axes for _, other in readers):
            return None
        used_up = max(1, int(count * share))
        after = self._after_all([v for v, _ in readers])
        if not after or count < 2:
            return None
        extents = {tensor: [min(1, size) for size in net.shape[tensor]]}
        found = self._spread(extents, net.maker[tensor])
        complete = {name for name, extent in found.items() if tuple(extent) == net.shape[name] and name != tensor}
        build = Build(self.net, after, complete, without=tensor)
        for name in sorted(complete):
            if build.reach_tensor(name):
                build.found.arcs[SOURCE, ("tensor", name)] = None
        for v, _ in readers:
            weight = net.work[v].weight
            assert weight is not None
            node = ("weight", weight.tensor)
            build.found.room[node], build.found.share[node] = weight.size_bytes, used_up / count
            build.found.arcs[SOURCE, node] = None
            for name in sorted(self._implied(v, 1.0) - complete - {tensor}):
                if build.reach_tensor(name):
                    build.found.arcs[node, ("tensor", name)] = None
            build.found.arcs[node, build.reach_operator(v, late=False)] = None
        build.finish().operator = min(v for v, _ in readers)
        otherwise = build.found.arcs | {(("result", str(v)), SINK): None for v, _ in readers}
        waits = ("tensor", tensor)
        build.found.room[waits], build.found.share[waits] = net.size_bytes[tensor], (count - used_up + 1) / count
        build.found.arcs |= {(SOURCE, waits): None, (waits, SINK): None}
        build.found.arcs, build.found.otherwise = pruned(build.found.arcs), pruned(otherwise)
        return build.found

    def _sums_over(self, v: int, need: Need) -> bool:
        """Whether an operator sums over one axis of a tensor with a weight whose elements each meet one place on it."""
        work = self.net.work[v]
        weight = work.weight
        if weight is None or weight.whole or work.sum_bytes is None or need.late or need.site is not weight.site:
            return False
        if not _is_whole_operand(need):
            return False
        if len(_summed(need)) != 1 or any(axis in need.coupling for axis in weight.coupling if axis is not None):
            return False
        return not _is_convolution(weight) or all(size == 1 for size in weight.shape[2:])

    def _after_all(self, operators: list[int]) -> int:
        """A bit for each operator of which each element needs all that any one weight of these has a part in."""
        net, found = self.net, 0
        last = max(operators)
        for d in range(last + 1, min(len(net.work), last + _LOOK_AHEAD)):
            if found >> d & 1 or not all(self.below[v] >> d & 1 for v in operators):
                continue
            if any(net.fused[d] >> v & 1 for v in operators):
                continue
            extents = self._needed(d)
            if all(self._uses_all_weights(v, extents) for v in operators):
                found |= self.below[d]
        return found

    def _uses_all_weights(self, v: int, extents: dict[str, list[int]]) -> bool:
        work = self.net.work[v]
        extent = extents.get(work.results[0])
        assert work.weight is not None
        return extent is not None and all(
            axis is None or extent[axis] >= work.shape[axis] for axis in work.weight.coupling
        )

    def _add_weight(self, build: Build, v: int, weight: HeldWeight, extent: list[int]) -> None:
        """A weight that the elements there are have used, in part for convolutions at the edges."""
        work = self.net.work[v]
        share = 1.0
        if _is_convolution(weight):
            share = share_of_taps(weight.site, weight.shape, extent)
            if not share:
                return
        node = ("weight", weight.tensor)
        build.found.room[node] = weight.size_bytes
        build.found.share[node] = min(share, build.found.share.get(node, 1.0))
        build.found.arcs[SOURCE, node] = None
        for name in sorted(self._implied(v, share)):
            if name not in build.complete and build.reach_tensor(name):
                build.found.arcs[node, ("tensor", name)] = None
        build.found.arcs[node, build.reach_operator(v, late=work.sum_bytes is None)] = None

    # -- what elements need -------------------------------------------------------------------------------

    def _needed(self, operator: int) -> dict[str, list[int]]:
        """Least extents of each tensor that any one element of an operator's result needs."""
        net = self.net
        extents = {name: [min(1, size) for size in net.shape[name]] for name in net.work[operator].results}
        return self._spread(extents, operator)

    def _used(self, operator: int, extents: dict[str, list[int]]) -> set[str]:
        """Graph inputs of which all elements have been used when an operator's result begins: by others, before it."""
        net = self.net
        fused = net.fused[operator]
        others = {
            name: extent for name, extent in extents.items()
            if name in net.maker and not fused >> net.maker[name] & 1
        }  # fmt: skip
        found = self._spread(others, operator)
        return {name for name, extent in found.items() if tuple(extent) == self.net.shape[name]}

    def _spread(self, extents: dict[str, list[int]], last: int) -> dict[str, list[int]]:
        """Add what boxes of these extents need in turn."""
        net = self.net
        complete = 0
        for v in range(last, max(-1, last - _NEEDS_BEFORE), -1):
            work = net.work[v]
            own = [extents[name] for name in work.results if name in extents and name in net.maker]
            if work.parts_of is not None and own:
                # The largest box of which a part consists is one of the whole; all of all parts is the whole.
                all_parts = all(tuple(extents.get(name, ())) == net.shape[name] for name in work.results)
                extents[work.parts_of] = list(net.shape[work.parts_of]) if all_parts else max(own, key=prod)
                continue
            if complete >> v & 1:
                for need in work.needs:
                    extents[need.tensor] = list(net.shape[need.tensor])
            if not own or complete >> v & 1:
                continue
            if v != last and tuple(own[0]) == work.shape:
                complete |= self.above[v]
                for need in work.needs:
                    extents[need.tensor] = list(net.shape[need.tensor])
                continue
            same = [extent for extent in own if len(extent) == len(work.shape)]
            extent = max(same, key=prod) if same else [min(1, size) for size in work.shape]
            for place, need in enumerate(work.needs):
                found = self._extent_of(v, place, need, extent)
                known = extents.get(need.tensor, found)
                # Boxes needed by different ways lie apart: a row and a column are not all of a matrix.
                extents[need.tensor] = max(known, found, key=prod)
        return extents

    def _extent_of(self, v: int, place: int, need: Need, extent: list[int]) -> list[int]:
        shape = self.net.work[v].shape
        found = []
        for k, axis in enumerate(need.coupling):
            if axis is None or extent[axis] >= shape[axis] or need.rule is None or need.site is None:
                found.append(need.seen[k])
                continue
            key = (v, place, k, extent[axis])
            if key not in self._spans:
                self._spans[key] = least_span(need.rule, need.site, need.position, k, axis, extent[axis])
            found.append(min(self._spans[key], need.seen[k]))
        return through_views(found, need.seen, self.net.shape[need.tensor])

    def _implied(self, v: int, share: float) -> frozenset[str]:
        """Tensors that are complete once any element of an operator's weight will not be used again."""
        known = self._covered.get(v)
        if known is None:
            known = self._covered[v] = frozenset(self._find_implied(v))
        if share == 1.0:
            return known
        # Where not all taps have been used, they need not match the operand evenly.
        return known - {need.tensor for need in self.net.work[v].needs}

    def _find_implied(self, v: int) -> set[str]:
        net, work = self.net, self.net.work[v]
        weight = work.weight
        assert weight is not None
        extents: dict[str, list[int]] = {}
        even: set[str] = set()
        for need in work.needs:
            if need.late or need.site is not weight.site or not _is_whole_operand(need):
                continue  # of what is joined, a weight's element meets one piece
            # An element of the weight meets one element along the axes that it has itself, and all along others.
            found = [
                1 if not weight.whole and (axis is None or axis in weight.coupling) else need.seen[k]
                for k, axis in enumerate(need.coupling)
            ]
            is_even = True
            if _is_convolution(weight):
                found[2:], is_even = met_by_taps(weight.site, weight.shape)
            if is_even:
                even.add(need.tensor)
            extents[need.tensor] = through_views(found, need.seen, net.shape[need.tensor])
        direct = set(extents)
        extents = self._spread(extents, v)
        whole = {name for name, extent in extents.items() if tuple(extent) == net.shape[name]}
        implied = {name for name in (whole - direct) | even if name in net.maker}
        # What all readers of a tensor yield says more than the tensor.
        return {
            name for name in implied
            if any(not implied.issuperset(net.work[r].results) for r, _ in net.readers.get(name, ()))
        }  # fmt: skip


def _summed(need: Need) -> list[int]:
    """Axes of an operand of which every element of the result needs all."""
    return [k for k, axis in enumerate(need.coupling) if axis is None and need.seen[k] > 1]


def _is_whole_operand(need: Need) -> bool:
    """Whether a tensor is all that an operator reads at its place, not a piece that is joined with others."""
    return need.site is not None and need.seen == need.site.shape(need.position)


def _is_convolution(weight: HeldWeight) -> bool:
    return "Conv" in weight.site.part.type and not weight.whole
