"""Products of matrices: rows, columns and batches can be cut; the axis summed over is cut into partial sums."""

from __future__ import annotations

from cosma.access.boxes import Box, whole
from cosma.access.elementwise import broadcast
from cosma.access.site import Access, Contraction, Site, TileNode, along


class MatrixProduct(Contraction):
    """MatMul by numpy's rules, and its quantised forms.

    Parameters
    ----------
    per_row, per_column
        Positions of operands with one value per row of the first matrix, or per column of the second, or one for all.
    sums
        Whether the kernel can yield partial sums: not where it scales or quantises them at once.
    """

    def __init__(
        self, second: int = 1, per_row: tuple[int, ...] = (), per_column: tuple[int, ...] = (), *, sums: bool = True
    ) -> None:
        self._second, self._per_row, self._per_column, self._sums = second, per_row, per_column, sums

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Rows of the first matrix, columns of the second, of the batches asked for."""
        a, b = site.operands[0], site.operands[self._second]
        assert a is not None
        assert b is not None
        axes = list(box)
        columns = axes.pop() if len(b) > 1 else None
        rows = axes.pop() if len(a) > 1 else None
        batch, batches = tuple(axes), site.result[: len(axes)]
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        found[0] = ((0, a[0]),) if rows is None else (*broadcast(batch, a[:-2], batches), rows, (0, a[-1]))
        found[self._second] = (
            ((0, b[0]),) if columns is None else (*broadcast(batch, b[:-2], batches), (0, b[-2]), columns)
        )
        for positions, span, size in (
            (self._per_row, rows, a[-2] if len(a) > 1 else 1),
            (self._per_column, columns, b[-1] if len(b) > 1 else 1),
        ):
            for i in positions:
                if site.shape(i) == (size,) and size != 1 and span is not None:
                    found[i] = (span,)
        return tuple(found)

    def reduced(self, site: Site) -> int:
        """Columns of the first matrix."""
        a = site.operands[0]
        return 0 if a is None or not self._sums else a[-1]

    def narrowed(
        self, site: Site, reads: tuple[Box | None, ...], span: tuple[int, int], *, first: bool
    ) -> tuple[Box | None, ...]:
        """Columns of the first matrix, rows of the second."""
        b = reads[self._second]
        assert b is not None
        found = list(reads)
        found[0] = along(reads[0], -1, span)
        found[self._second] = along(b, -2 if len(b) > 1 else 0, span)
        return tuple(found)


class DynamicProduct(MatrixProduct):
    """A product that quantises its first operand by the extremes of all of it, so that only columns can be cut."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Columns."""
        return (*(False,) * (len(site.result) - 1), True)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """All of the first operand, columns of the second."""
        return (site.all_of(0), *super().reads(site, box)[1:])

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """The operator itself, for all rows."""
        return TileNode() if box[:-1] == whole(site.result[:-1]) else None


class GeneralProduct(Contraction):
    """Gemm: a product of two matrices, each transposed or not, plus a broadcast addend; and its quantised form.

    Parameters
    ----------
    second, addend
        Positions of the second matrix and of the addend.
    per_column
        Positions of operands with one value per column of the second matrix, or one for all.
    sums
        Whether the kernel can yield partial sums.
    """

    def __init__(
        self, second: int = 1, addend: int = 2, per_column: tuple[int, ...] = (), *, sums: bool = True
    ) -> None:
        self._second, self._addend, self._per_column, self._sums = second, addend, per_column, sums

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Rows and columns."""
        return (True, True)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Rows of the first matrix, columns of the second, the addend at the region."""
        a, b = site.operands[0], site.operands[self._second]
        assert a is not None
        assert b is not None
        rows, columns = box
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        found[0] = ((0, a[0]), rows) if site.integer("transA", 0) else (rows, (0, a[1]))
        found[self._second] = (columns, (0, b[1])) if site.integer("transB", 0) else ((0, b[0]), columns)
        addend = site.shape(self._addend)
        if addend is not None:
            found[self._addend] = broadcast(box, addend, site.result)
        for i in self._per_column:
            if site.shape(i) == (site.result[1],) != (1,):
                found[i] = (columns,)
        return tuple(found)

    def reduced(self, site: Site) -> int:
        """Columns of the first matrix; before opset 11 the kernel cannot do without an addend."""
        a = site.operands[0]
        return 0 if a is None or not self._sums or site.opset < 11 else a[0 if site.integer("transA", 0) else 1]

    def narrowed(
        self, site: Site, reads: tuple[Box | None, ...], span: tuple[int, int], *, first: bool
    ) -> tuple[Box | None, ...]:
        """Columns of the first matrix, rows of the second; the first partial sum adds the addend."""
        found = list(reads)
        found[0] = along(reads[0], 0 if site.integer("transA", 0) else 1, span)
        found[1] = along(reads[1], 1 if site.integer("transB", 0) else 0, span)
        if not first and len(found) > 2:
            found[2] = None
        return tuple(found)


class EinsteinSum(Access):
    """Einsum with its result written out: a label of the result is cut in every operand that has it."""

    def _terms(self, site: Site) -> tuple[list[str], str] | None:
        """Labels of each operand's axes and of the result's; None for what is written short."""
        equation = site.text("equation", "").replace(" ", "")
        if equation.count("->") != 1 or "." in equation:
            return None
        left, result = equation.split("->")
        terms = left.split(",")
        fits = len(terms) == len(site.operands) and all(
            shape is not None and len(shape) == len(term) for shape, term in zip(site.operands, terms, strict=True)
        )
        return (terms, result) if fits and len(result) == len(site.result) == len(set(result)) else None

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis whose label has one extent in all operands: none that is broadcast."""
        found = self._terms(site)
        if found is None:
            return (False,) * len(site.result)
        terms, result = found
        return tuple(
            all(
                shape[i] == size
                for term, shape in zip(terms, site.operands, strict=True)
                if shape is not None
                for i, known in enumerate(term)
                if known == label
            )
            for label, size in zip(result, site.result, strict=True)
        )

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """What has a label of the result is cut along it, the rest is read whole."""
        found = self._terms(site)
        if found is None:
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        terms, result = found
        spans = {
            label: span
            for label, span, cut in zip(result, box, self.cuts(site), strict=True)
            if cut
        }
        return tuple(
            None if shape is None else tuple(
                spans.get(label, (0, size)) for label, size in zip(term, shape, strict=True)
            )
            for term, shape in zip(terms, site.operands, strict=True)
        )  # fmt: skip
