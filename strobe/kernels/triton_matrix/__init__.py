"""The chunk kernel of the matrix-state families, `decay` and `delta`: one recurrence, specialised when it is compiled.

    S_t = (I + a_t b_t^T) diag(alpha_t) S_{t-1} + k_t v_t^T          y_t = S_t^T q_t

`rank` says what of it there is: 0 no low-rank part (`decay`), 1 the delta rule (a = -k), 2 the general form. The decay
is one per head or one per key channel.

- `algebra`: decays between the tokens of a chunk, and products with them, as device functions
- `forward`: the inverse of a chunk's triangular system (parallel over chunks), and the scan (sequential over chunks)
- `backward`: the gradient of the carry (sequential, backwards), and those of the inputs (parallel over chunks)
- `plan`: where chunks begin and what is looked at and edited in each; the static table of tile sizes
- `operator`: both passes as `torch.library` operators
- `adapter`: what the two families share in calling it

Shape letters: batch, time, heads, groups, key, value as in the families; n_chunks; chunk, the tokens of a chunk.
"""
