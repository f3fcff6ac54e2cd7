"""From the steps of a walk to the graph: what is live, what is stored, and which operator stands for which node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cosma.access import Argument, NodeSite, Site
from cosma.errors import GraphError, ModelLoadError
from cosma.frontend.account import constants_read, fates_of, owners_of, records_of, summary_of, tensors_of
from cosma.frontend.gathered import RowSet
from cosma.frontend.loaded import LoadedModel, NodeFate
from cosma.frontend.nodes import Node
from cosma.frontend.records import Step
from cosma.frontend.selects import boxes_in_root
from cosma.frontend.stored import share_equals
from cosma.frontend.values import Value, dtype_name
from cosma.frontend.walk import Walk
from cosma.graph import Graph, Operator, Region, Rows, Tensor, TensorKind
from cosma.graph.dtypes import size_of
from cosma.graph.tensor import Part
from cosma.rewrite.quantise import quantise


def assemble(
    walk: Walk, nodes: Sequence[Node], live: Sequence[bool], outputs: Sequence[str], notes: list[str], path: Path,
    sha256: str, dims: dict[str, int],
) -> LoadedModel:  # fmt: skip
    """Build the graph and the record of every node.

    A graph output that is a view of an intermediate makes that intermediate the output, under the name its
    producer gave it. One that is a view of a graph input, or a constant, needs nothing moved and is noted.
    """
    _name_parts(walk)
    fates = fates_of(walk.steps, [walk.values[name] for name in outputs])
    running = [step for step, fate in zip(walk.steps, fates, strict=True) if fate is NodeFate.OPERATOR]
    _share_stored(walk, running)
    row_sets = _name_row_sets(walk, running)
    names = _operator_names(running)
    owners = owners_of(walk.steps, fates, names)
    operators = _operators(walk.steps, running, names, owners, walk.inputs)
    tensors = _tensors(walk, running, operators, _final_roots(walk, outputs, running, notes), row_sets)
    records = records_of(walk.steps, fates, owners, nodes, live)
    notes.extend(summary_of(records, walk.spliced, running))
    if not operators:
        notes.append("no operator is left: every graph output is a graph input, a view of one, or a constant")
    aliases = {
        value.name: value.root
        for step in walk.steps
        for value in step.results
        if value.elements is None and value.name != value.root and value.name not in walk.parts
    }
    graph = Graph(tensors, operators, path.stem)
    sites = {step.node.first_output: _site(step, walk.opset) for step in running}
    loaded = LoadedModel(graph, path.stem, sha256, tuple(notes), records, path, dims, aliases, graph, sites)
    return _as_quantised(loaded)


def _as_quantised(loaded: LoadedModel) -> LoadedModel:
    """Take every quantised group for the one operator that it is."""
    rewritten = quantise(loaded.graph)
    if rewritten.graph is loaded.graph:
        return loaded
    within = {old: name for name, parts in rewritten.lineage.operators.items() for old in parts}
    records = tuple(
        replace(
            record,
            operator=within[record.operator],
            fate=NodeFate.FUSED
            if record.fate is NodeFate.OPERATOR and record.operator != within[record.operator] else record.fate,
        )
        if record.operator is not None else record
        for record in loaded.nodes
    )  # fmt: skip
    groups = sum(len(parts) > 1 for parts in rewritten.lineage.operators.values())
    notes = (*loaded.notes, f"{groups} operators are quantised: they stand for the nodes that de- and requantise, too")
    return replace(loaded, graph=rewritten.graph, notes=notes, nodes=records)


def _name_parts(walk: Walk) -> None:
    """Give each element of a split sequence the name it is first taken out under, or ``sequence[i]`` if it is not."""
    if not walk.parts:
        return
    final: dict[str, str] = {}
    for part, (sequence, i) in walk.parts.items():
        chosen = walk.renamed.get(part, f"{sequence}[{i}]")
        while part not in walk.renamed and chosen in walk.values:
            chosen += "'"
        final[part] = chosen
    for step in walk.steps:
        for value in (*step.results, *step.reads):
            for held in tensors_of(value):
                held.root = final.get(held.root, held.root)
                held.stored = tuple(final.get(stored, stored) for stored in held.stored)


def _share_stored(walk: Walk, running: Sequence[Step]) -> None:
    """Let constants of one size and one source be read under the source's name where that saves storing them."""
    shared = share_equals(constants_read(running))
    if not shared:
        return
    held = {id(value): value for value in walk.values.values()}
    for step in walk.steps:
        held.update((id(part), part) for value in (*step.results, *step.reads) for part in tensors_of(value))
    for value in held.values():
        if value.constant and value.stored:
            value.stored = tuple(dict.fromkeys(shared.get(name, name) for name in value.stored))


def _name_row_sets(walk: Walk, running: Sequence[Step]) -> dict[str, RowSet]:
    """Give every row set a name that no value of the model has; the same rows of the same table are one."""
    named: dict[str, RowSet] = {}
    for step in running:
        for rows in (rows for table in step.tables for rows in table.rows):
            name = rows.label
            while name in walk.values and name not in named:
                name += "'"
            rows.name = name
            named.setdefault(name, rows)
            walk.values[name] = Value(name, rows.table.element, rows.shape, name, constant=True, stored=(name,))
    return named


def _weights_of(step: Step) -> tuple[str, ...]:
    """Names of the stored constants and row sets that a step reads."""
    tables = {id(table.operand): table for table in step.tables}
    names: list[str] = []
    for part in (part for value in step.reads for part in tensors_of(value) if part.constant):
        table = tables.get(id(part))
        names += part.stored if table is None else [*(rows.name for rows in table.rows), *table.whole]
    return tuple(dict.fromkeys(names))


def _operator_names(running: Sequence[Step]) -> dict[int, str]:
    """A unique name for every operator: the node's, else its type and first result; repeats are numbered."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    wanted = [step.node.name or f"{step.node.qualified_type}_{step.node.first_output}" for step in running]
    reserved = set(wanted)
    for step, want in zip(running, wanted, strict=True):
        name, number = want, 1
        while name in taken or (number > 1 and name in reserved):
            number += 1
            name = f"{want}#{number}"
        taken.add(name)
        names[id(step)] = name
    return names


def _operators(
    steps: Sequence[Step],
    running: Sequence[Step],
    names: dict[int, str],
    owners: dict[int, str],
    inputs: Sequence[Value],
) -> list[Operator]:
    covers: dict[str, list[str]] = {names[id(step)]: [step.node.first_output] for step in running}
    for step in steps:
        owner = owners.get(id(step))
        if owner is not None and id(step) not in names:
            covers[owner].append(step.node.first_output)
    shapes = {value.root: value.shape for step in running for value in step.results}
    shapes.update((value.root, value.shape) for value in inputs)
    operators = []
    for step in running:
        reads = [part for value in step.reads for part in tensors_of(value)]
        means = step.part or Part(step.node.qualified_type.replace("+", "_"), step.node.domain)
        operators.append(
            Operator(
                name=names[id(step)],
                type=means.type,
                inputs=tuple(dict.fromkeys(part.root for part in reads if not part.constant)),
                outputs=tuple(result.root for result in step.results),
                weights=_weights_of(step),
                covers=tuple(covers[names[id(step)]]),
                macs=step.macs,
                domain=means.domain,
                attributes=means.attributes,
                reads=_regions(step, shapes),
            )
        )
    return operators


def _regions(step: Step, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Region, ...]:
    """What a step reads of its first operand, in the coordinates of the tensor that holds it."""
    if not step.boxes:
        return ()
    first, *others = step.reads
    if first.root not in shapes or any(part.root == first.root for value in others for part in tensors_of(value)):
        return ()
    return boxes_in_root(first.root, shapes[first.root], step.boxes, first.shape)


def _site(step: Step, opset: int) -> NodeSite:
    """Describe a node in terms of the graph, for rules of access."""
    tables = {id(table.operand): table for table in step.tables}
    operands: list[Argument | None] = []
    for value in step.operands:
        if value is None or value.elements is not None:
            operands.append(None)
            continue
        table = tables.get(id(value))
        stored = value.stored if table is None else (*(rows.name for rows in table.rows), *table.whole)
        aligned = value.constant and table is None and _is_aligned(value)
        operands.append(Argument(value.root, value.shape, stored if value.constant else (), value.constant, aligned))
    results = {value.name: value for value in step.results}
    shapes = tuple(results[name].shape if name in results else None for name in step.node.outputs)
    site = Site(
        step.part or Part(step.node.qualified_type.replace("+", "_"), step.node.domain),
        tuple(None if operand is None else operand.shape for operand in operands),
        shapes,
        step.contents,
        opset,
    )
    names = tuple(results[name].root if name in results else "" for name in step.node.outputs)
    return NodeSite(site, tuple(operands), names)


def _is_aligned(value: Value) -> bool:
    """Whether each element of a constant comes from the element at its place of what is stored."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if not one.is_computed or one.source is None:
            if one.stored not in ((), (one.root,)):
                return False
            continue
        node, operands, _ = one.source
        if node.type not in ("Cast", "DequantizeLinear", "Identity") or node.domain not in ("", "com.microsoft"):
            return False
        waiting += [operand for operand in operands if operand is not None and operand.stored]
    return True


def _tensors(
    walk: Walk,
    running: Sequence[Step],
    operators: Sequence[Operator],
    finals: set[str],
    row_sets: Mapping[str, RowSet],
) -> list[Tensor]:
    """Graph inputs, then weights, then results, each in the order they are met."""
    holders: dict[str, Value] = {name: value for name, value in walk.values.items() if value.root == name}
    for step in walk.steps:
        for value in step.results:
            holders.setdefault(value.root, value)
    weights = dict.fromkeys(name for operator in operators for name in operator.weights)
    tensors = [_tensor(value, value.root, TensorKind.INPUT) for value in walk.inputs]
    for name in weights:
        tensor = _tensor(holders[name], name, TensorKind.WEIGHT)
        tensors.append(replace(tensor, rows=_rows(row_sets[name])) if name in row_sets else tensor)
    for step in running:
        for value in step.results:
            kind = TensorKind.OUTPUT if value.root in finals else TensorKind.INTERMEDIATE
            tensors.append(_tensor(value, value.root, kind))
    return tensors


def _rows(rows: RowSet) -> Rows:
    content = () if rows.kind == "first" else rows.indices
    indices = (index.root for index in content if index is not None and not index.constant)
    return Rows(rows.table.root, tuple(dict.fromkeys(indices)))


def _final_roots(walk: Walk, outputs: Sequence[str], running: Sequence[Step], notes: list[str]) -> set[str]:
    """Tensors that are graph outputs, under the names their producers gave them."""
    produced = {value.root for step in running for value in step.results}
    finals: dict[str, str] = {}
    for name in outputs:
        for part in tensors_of(walk.values[name]):
            if part.constant:
                notes.append(f"graph output {name!r} is a constant: nothing is computed or moved for it")
            elif part.root not in produced:
                notes.append(f"graph output {name!r} is the graph input {part.root!r}: nothing is moved for it")
            elif part.root in finals:
                notes.append(f"graph outputs {finals[part.root]!r} and {name!r} are one tensor, {part.root!r}")
            else:
                finals[part.root] = name
                if name != part.root:
                    notes.append(f"graph output {name!r} is a view of {part.root!r}, which is the output tensor")
    return set(finals)


def _tensor(value: Value, name: str, kind: TensorKind) -> Tensor:
    dtype = dtype_name(value.element)
    try:
        return Tensor(name, size_of(value.shape, dtype), kind, dtype, value.shape)
    except GraphError as error:
        raise ModelLoadError(f"tensor {name!r} cannot be sized: {error}") from error
