"""``strobe bench --compile``: every Triton kernel compiled for a GPU that need not be there, as a table."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

SUMMARY = "what the compiler makes of every GPU kernel: registers, spills, shared memory; needs no GPU"
ORDER = 95

_HEAD = "| kernel | sm | chunk | warps | registers | stack, bytes | spills | shared, bytes | tensor opcodes | fit |"


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument(
        "--compile", action="store_true", required=True, help="compile ahead of time and print the table"
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only kernels whose name contains it")
    parser.add_argument(
        "--capability", type=int, nargs="+", choices=(80, 90), default=[90, 80], help="of the GPU (default: 90 80)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there, as Markdown")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Print one row a kernel. Raises ValueError where nothing matches or a kernel does not fit."""
    lines, unfit = [], []
    for line, problem in rows(args.match, args.capability):
        if not lines:
            lines = [_HEAD, "|---" * 10 + "|"]
            say("\n".join(lines))
        lines.append(line)
        say(line)
        unfit += [problem] if problem else []
    if not lines:
        raise ValueError(f"no kernel's name contains {args.match!r}; leave --match out to see them all")
    if args.out is not None:
        args.out.write_text(page(lines), encoding="utf-8")
    if unfit:
        raise ValueError(
            f"{len(unfit)} of {len(lines) - 2} kernels do not fit: {'; '.join(unfit)}. Give them smaller tiles"
        )


def rows(match: str, capabilities: list[int]) -> Iterator[tuple[str, str]]:
    """A line of the table and what is wrong with that kernel ("" where nothing is), kernel by kernel."""
    from strobe.kernels.triton.ahead_of_time import compile_for
    from strobe.kernels.triton.variants import variants

    for variant in variants():
        if match not in variant.name:
            continue
        for capability in (c for c in capabilities if c in variant.capabilities):
            found = compile_for(variant, capability)
            problems = found.problems()
            opcodes = ", ".join(f"{count} {name}" for name, count in found.tensor_opcodes.items()) or "none"
            allowed = f" ({found.allowed_stack} allowed)" if found.allowed_stack else ""
            line = (
                f"| {variant.name} | {capability} | {variant.constants.get('CHUNK', '')} | {variant.num_warps} | "
                f"{found.registers} | {found.stack}{allowed} | {found.local_loads_and_stores} | {found.shared} | "
                f"{opcodes} | {'no: ' + ', '.join(problems) if problems else 'yes'} |"
            )
            yield line, f"{variant.name}, sm_{capability}: {', '.join(problems)}" if problems else ""


def page(lines: list[str]) -> str:
    """The table as a Markdown page."""
    import triton

    from strobe.kernels.triton.ahead_of_time import SHARED_MEMORY

    most = ", ".join(f"{size:,} bytes are there on sm_{capability}" for capability, size in SHARED_MEMORY.items())
    return (
        f"""# The GPU kernels, compiled

What `strobe bench --compile` printed with triton {triton.__version__}. It needs no GPU and nothing here ran on one:
it says that each kernel builds, what it occupies, and that it can be launched, not how fast it is.

Registers are a thread's, of 255. Stack is what a thread keeps in memory because registers ran out, spills the
instructions in the machine code that go there. Shared memory is a block's: {most}. HGMMA and HMMA are
tensor-core instructions in the machine code, a warp group's and a warp's. Each kernel is compiled at the head size of a
released model, for 32 heads; a row "captures, edits, readers" is the same scan with those compiled in.

"""
        + "\n".join(lines)
        + "\n"
    )
