"""Maps whose channels lie behind rows and columns, as ONNX Runtime lays out quantised ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from cosma.access.boxes import Box
from cosma.access.site import Access, Site, TileNode

T = TypeVar("T")


class EitherOrder(Access):
    """A rule of maps with channels before rows, for nodes that may say, or whose type does, that these come last.

    Parameters
    ----------
    rule
        The rule; the attributes that its tiles change are of rows and columns alone.
    always
        Whether the type says that channels come last.
    """

    def __init__(self, rule: Access, *, always: bool = False) -> None:
        self._rule, self._always = rule, always

    def _first(self, site: Site) -> Site | None:
        """The operator on maps with their channels first; None where these are."""
        data = site.operands[0]
        if data is None or not (self._always or site.integer("channels_last", 0)):
            return None
        results = tuple(None if shape is None else _first(shape) for shape in site.results)
        return replace(site, operands=(_first(data), *site.operands[1:]), results=results)

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Those of the rule."""
        turned = self._first(site)
        return self._rule.cuts(site) if turned is None else _last(self._rule.cuts(turned))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """What the rule says, of the map with its axes in the node's order."""
        turned = self._first(site)
        if turned is None:
            return self._rule.reads(site, box)
        read, *others = self._rule.reads(turned, _first(box))
        return (None if read is None else _last(read), *others)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """What the rule says, cropped in the node's order."""
        turned = self._first(site)
        if turned is None:
            return self._rule.tile(site, box)
        how = self._rule.tile(turned, _first(box))
        return how if how is None else replace(how, crop=_last(how.crop))


def _first(axes: tuple[T, ...]) -> tuple[T, ...]:
    """Put what belongs to the last axis second."""
    return (*axes[:1], *axes[-1:], *axes[1:-1])


def _last(axes: tuple[T, ...]) -> tuple[T, ...]:
    """Put what belongs to the second axis last."""
    return (*axes[:1], *axes[2:], *axes[1:2])
