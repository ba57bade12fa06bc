"""The step kernel of the nonlinear vector recurrences (`elman`, `gru`, `lstm`, `slstm`): one launch a sequence.

What does not depend on the carry, W x_t + b, is one product before the launch. A program then holds the carry of some
rows of one head and steps through the tokens; the recurrent weights are block-diagonal, one block R_k a head, so that
heads need not wait for each other. A dense R is one head.

- `cell`: one step of each cell, its gradient, and an edit of a carry with its gradient, as device functions
- `pieces`: products with weights that are too wide to hold, read in a pipelined loop
- `forward`, `backward`: the kernels, over tokens and backwards over them
- `launch`: buffers, tables, the static table of tiles
- `operator`: both passes as `torch.library` operators
- `adapter`: the families' backend

Shape letters: batch, time, gates, heads, dim (channels of a head), fields (of the carry: h; h, c; h, c, n, m), saved
(what of a step the backward pass starts from). hidden = heads * dim.
"""
