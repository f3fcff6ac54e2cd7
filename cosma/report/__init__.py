"""Plans made visible: figures, pages, tables, explanations, comparisons and traces."""
