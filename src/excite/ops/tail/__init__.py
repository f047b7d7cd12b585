"""The residual tail: batch norm, squeeze, gate, scale, addition and rectifier in two passes over the map.

One pass takes mean and variance of z per sample and channel. Batch norm is then affine, `y = A z + B` with
`A = gamma / sigma` and `B = beta - gamma mu / sigma` per channel, and what a squeeze needs of y follows from the same
moments. The gate's weights w turn it into `a = A w`, `b = B w` per sample and channel, and the second pass writes
`relu(a z + b + shortcut)`. Everything between the passes is `[n c]` and small.
"""
