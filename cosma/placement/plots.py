"""Heat maps of affinity and load, before and after placing (matplotlib, imported only here)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError
from cosma.figures import figure_bytes, new_figure
from cosma.placement.copies import shares_of, split_summary
from cosma.placement.metrics import device_load, mean_cost
from cosma.text import figure_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.front import FrontPoint
    from cosma.placement.topology import Topology


def heat_map(
    kind: str,
    affinity: Affinity,
    topology: Topology,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    layer: int = 0,
    copies: NDArray[np.bool_] | None = None,
) -> bytes:
    """Draw a figure of four panels: affinity of one layer pair and load of all layers, before and after.

    Experts of both layers are sorted by device, devices are separated by lines; what lies in the blocks on the
    diagonal stays on a device. ``kind`` is ``png``, ``svg`` or ``pdf``. ``copies`` ``[layers, experts, devices]`` share
    the load after placing evenly; experts are sorted by their homes. Raises InputError if the layer has no successor or
    the kind is unknown. Raises SolverUnavailableError if matplotlib is not installed.
    """
    if not 0 <= layer < affinity.layers - 1:
        raise InputError(f"heat map: layer {layer} has no next layer; choose one of 0 to {affinity.layers - 2}")
    figure = new_figure(11, 9)
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(2, 2)
    loads = [device_load(affinity, topology, homes).astype(np.float64) for homes in (before, after)]
    costs = [mean_cost(affinity, topology, homes) for homes in (before, after)]
    if copies is not None:
        loads[1] = np.einsum("le,led->ld", affinity.load.astype(np.float64), shares_of(copies))
        costs[1] = float(split_summary(affinity, topology, copies)["mean_cost"])
    peak = max(float(load.max()) for load in loads)
    for column, (name, homes) in enumerate((("before", before), ("after", after))):
        _affinity_panel(axes[0, column], affinity, homes, layer, f"{name}: affinity of layers {layer}, {layer + 1}")
        image = axes[1, column].imshow(loads[column], aspect="auto", vmin=0, vmax=peak)
        shared = "" if copies is None or column == 0 else " shared by copies"
        title = f"{name}: load{shared}, mean cost {costs[column]:.4f}"
        axes[1, column].set(title=title, xlabel="device", ylabel="layer")
        for axis in (axes[1, column].xaxis, axes[1, column].yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axes[1, column], label="visits")
    return figure_bytes(figure, kind, 120)


def front_figure(kind: str, points: Sequence[FrontPoint], title: str) -> bytes:
    """Draw a figure of crossings against imbalance, a line for each number of replicas per device.

    Raises InputError if the file's ending is none of ``KINDS``. Raises SolverUnavailableError if matplotlib is not
    installed.
    """
    figure = new_figure(8, 5.5)
    axis = figure.subplots()
    for number in sorted({point.replicas_per_device for point in points}):
        own = [p for p in points if p.replicas_per_device == number and p.strategy == "ours"]
        own.sort(key=lambda point: point.worst_imbalance)
        (line,) = axis.plot(
            [p.worst_imbalance for p in own], [p.mean_cost for p in own], "o-", label=f"{number} {_replicas(number)}"
        )
        for point in points:
            if point.strategy == "eplb" and point.replicas_per_device == number:
                axis.plot(
                    [point.worst_imbalance], [point.mean_cost], "x", color=line.get_color(),
                    label=f"EPLB, {number} {_replicas(number)}",
                )  # fmt: skip
    axis.set(xlabel="load of the fullest device over the mean, worst layer", ylabel="mean cost of a step")
    axis.set_title(figure_text(title), wrap=True)
    axis.grid(alpha=0.3)
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure_bytes(figure, kind, 120)


def _replicas(number: int) -> str:
    return "replica per device" if number == 1 else "replicas per device"


def _affinity_panel(axis: Any, affinity: Affinity, homes: NDArray[np.integer], layer: int, title: str) -> None:
    from matplotlib.colors import FuncNorm

    rows, columns = (np.argsort(homes[at], kind="stable") for at in (layer, layer + 1))
    # Logarithmic, and zero is a colour too.
    tokens = affinity.transitions[layer][np.ix_(rows, columns)]
    most = max(1, int(tokens.max()))
    norm = FuncNorm((np.log1p, np.expm1), vmin=0, vmax=most)
    ticks = [0, *(10**k for k in range(len(str(most))))]
    axis.figure.colorbar(axis.imshow(tokens, aspect="equal", norm=norm), ax=axis, label="tokens", ticks=ticks)
    for at, order, draw in ((layer, rows, axis.axhline), (layer + 1, columns, axis.axvline)):
        for edge in np.flatnonzero(np.diff(homes[at][order])):
            draw(edge + 0.5, color="white", linewidth=0.6)
    axis.set(title=title, xlabel="expert of the next layer, by device", ylabel="expert, by device")
