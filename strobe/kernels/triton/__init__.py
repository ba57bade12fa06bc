"""What every Triton kernel here shares, and none of it imports triton before a kernel is asked for.

- `backend.TritonBackend`: a family's backend "triton", imported when it first runs; it says why, if it cannot run.
- `device`: where a kernel can run: on CUDA, or on a CPU in Triton's interpreter.
- `ahead_of_time`: compiling a kernel for a GPU that is not there, and what came out: registers, spills, shared memory.
- `variants`: the static table of what is compiled so, collected from every folder ``strobe/kernels/triton_*``.
"""
