"""The kernel of `wkv`: RWKV-4's numerator, denominator and running maximum, elementwise, all three in registers.

- `kernels`: the scan, with edits and captures, and its gradient
- `operator`: both passes as `torch.library` operators, and their launches
- `variants`: what is compiled ahead of time

Readers ask the carries before edits, which the scan stores only where they, or a gradient, are wanted.
Shape letters as in the family: batch, time, channels; 3 for (num, den, max), in that order.
"""
