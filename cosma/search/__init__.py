"""Search over orders and residency for networks too large to solve exactly.

`Searcher` works in portions and can be interleaved with bounds; `search` is one call.
`divide` plans part by part, as COSMA does.
"""

from cosma.search.divide import DivideOutcome, Part, divide
from cosma.search.searcher import Searcher, SearchOutcome, search

__all__ = ["DivideOutcome", "Part", "SearchOutcome", "Searcher", "divide", "search"]
