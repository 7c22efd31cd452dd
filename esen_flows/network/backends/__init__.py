"""How sums over edges are computed: `edge_sums` is the one module that a network imports."""
