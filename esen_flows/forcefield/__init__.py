"""Force fields behind one contract. Imports torch, numpy, ase, safetensors and the neighbour-list library only."""
