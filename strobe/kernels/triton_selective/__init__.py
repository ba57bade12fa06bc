"""The kernel of `selective` (Mamba-1): discretisation and scan in one, a program holds some channels with all of their
state and goes through the tokens one by one.

- `forward`: the scan, with captures, edits and readers
- `backward`: a segment's states are made again from its start and kept until the way back has used them
- `launch`: grids, tables, buffers; the static table of tile sizes
- `operator`: both passes as `torch.library` operators
- `variants`: what is compiled ahead of time

Shape letters as in the family: batch, time, channels, state; n_segments, the stretches between two stops.
"""
