"""Reports: runs as tables, plots and one page, beside the papers' numbers."""
