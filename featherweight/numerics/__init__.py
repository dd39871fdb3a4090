"""Pure tensor functions: affine grids, factorisation, Gram algebra. Nothing here ever sees an ``nn.Module``."""
