"""Studies: many run folders read together."""
