"""Statistics of results: how far a number would move with other seeds and other examples, and what follows."""
