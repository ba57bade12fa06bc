"""The kernel of `diagonal`: h_t = a_t h_{t-1} + b_t elementwise, real or complex (as pairs), h in registers.

- `kernels`: the scan, with edits, and its gradient
- `operator`: both passes as `torch.library` operators, and their launches
- `variants`: what is compiled ahead of time

The reads are the carries, so that captures and readers need nothing inside, but where the carry was edited.
Shape letters as in the family: batch, time, channels; pairs, 2 where complex (real, imaginary), else 1.
"""
