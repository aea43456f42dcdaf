"""How small gzip packs text, and how long it takes: a kind of study for acon_nb."""
