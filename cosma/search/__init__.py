"""Search over orders and residency for networks too large to solve exactly.

`Searcher` works in portions and can be interleaved with bounds; `search` is one call.
"""

from cosma.search.searcher import Searcher, SearchOutcome, search

__all__ = ["SearchOutcome", "Searcher", "search"]
