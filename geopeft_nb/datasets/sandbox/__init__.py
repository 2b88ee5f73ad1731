"""The sandbox planet: chips that are computed, in climates whose difference is yours to choose."""
