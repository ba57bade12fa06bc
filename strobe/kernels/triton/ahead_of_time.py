"""Compiling a kernel for a GPU that is not there, and what came out: registers, stack, spills, shared memory, opcodes.

ptxas and cuobjdump come with triton's wheel, so no CUDA toolkit is needed. The compiler does not refuse a kernel that
asks for more shared memory than there is; `Compiled.problems` does.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The most that one block may have, in bytes: CUDA C++ Programming Guide, table of technical specifications.
SHARED_MEMORY = {90: 232_448, 80: 166_912}
# Tensor-core opcodes by architecture: HGMMA reads shared memory (a warp group, 64 rows at least), HMMA registers.
_TENSOR = re.compile(r"\b(HGMMA|HMMA)\b")
_SPILL = re.compile(r"\b(LDL|STL)\b")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kernel at one shape, as it is launched.

    `signature`: the type of each argument that is not in `constants` ("*fp32", "i32"); pointers are taken to be 16-byte
    aligned, which torch's allocations are. `constants`: values of the compile-time arguments, None for a pointer that
    is not passed. `stack`: by capability, the bytes a thread may spill where that is not 0, and `why_stack` the reason.
    `capabilities`: those that it is launched on so.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    stack: Mapping[int, int] = field(default_factory=dict)
    why_stack: str = ""
    capabilities: tuple[int, ...] = (90, 80)
    tensor_rows: int = 0
    """Rows of its largest product; from 64 on a Hopper kernel has to use warp-group instructions."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler made of a variant for `capability` (80, 90). Bytes, but for `registers` (a thread), opcode
    counts (in the machine code, not executed) and `seconds`."""

    variant: Variant
    capability: int
    registers: int
    stack: int
    local_loads_and_stores: int
    shared: int
    tensor_opcodes: dict[str, int]
    seconds: float

    @property
    def allowed_stack(self) -> int:
        """Bytes a thread may spill on this capability."""
        return self.variant.stack.get(self.capability, 0)

    def problems(self) -> list[str]:
        """What keeps the kernel from being launched, or from being what it should: empty where it is fine."""
        found = []
        if self.shared > SHARED_MEMORY[self.capability]:
            found.append(f"{self.shared} bytes of shared memory, of {SHARED_MEMORY[self.capability]}")
        allowed = self.allowed_stack
        if self.stack > allowed:
            found.append(f"{self.stack} bytes of stack, {allowed} are allowed")
        if allowed == 0 and self.local_loads_and_stores:
            found.append(f"{self.local_loads_and_stores} spills")
        if self.variant.tensor_rows and not self.tensor_opcodes:
            found.append("no tensor-core instruction")
        return found


def compile_for(variant: Variant, capability: int) -> Compiled:
    """Compile `variant` for an Nvidia GPU of compute `capability` (90 for 9.0). Raises RuntimeError in the interpreter,
    and what the compiler raises."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from strobe.kernels.triton.device import interpreting

    if interpreting():
        raise RuntimeError(
            f"compiling {variant.name} was asked for, but TRITON_INTERPRET is set and its kernel is interpreted; "
            "unset it and start again"
        )
    # Its default changes in triton 3.10, and it warns until it is set.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    names = variant.kernel.arg_names
    signature = {n: "constexpr" if n in variant.constants else variant.signature[n] for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=variant.constants, attrs=aligned)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    start = time.monotonic()
    kernel = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    seconds = time.monotonic() - start
    usage, code = _inspect(kernel.asm["cubin"])
    opcodes = _TENSOR.findall(code)
    return Compiled(
        variant=variant,
        capability=capability,
        registers=usage["REG"],
        stack=usage["STACK"],
        local_loads_and_stores=len(_SPILL.findall(code)),
        shared=kernel.metadata.shared,
        tensor_opcodes={name: opcodes.count(name) for name in sorted(set(opcodes))},
        seconds=seconds,
    )


def _inspect(binary: bytes) -> tuple[dict[str, int], str]:
    """Resource usage and disassembly of a cubin."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)

        def ask(option: str) -> str:
            return subprocess.run([tool, option, path], check=True, capture_output=True, text=True).stdout

        usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK):(\d+)", ask("-res-usage"))}
        return usage, ask("-sass")
