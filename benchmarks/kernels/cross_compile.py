"""Compilation of every kernel for GPUs that are absent, with limits on what each may use.

A kernel that spills registers or loads four bytes at a time is right and slow, and no test of its results would tell.
The launches are those of `plan`, of tensors without memory, so what is compiled here is what a GPU would be given.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from vaefit.kernels._triton.launch import Launch, Workspace
from vaefit.kernels._triton.plan import MOST_REGISTERS, FocalOutputs, plan_confusion, plan_focal, plan_scale
from vaefit.kernels.backend import interpreted
from vaefit.kernels.checks import FocalSetting
from vaefit.vae.errors import RunError

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx1100")

_TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.uint8: "u8", torch.uint16: "u16",
    torch.uint32: "u32", torch.uint64: "u64", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Launch to compile."""

    name: str
    launch: Launch
    loads: int
    """Least number of loads as wide as a thread's cells, up to 128 bits, on NVIDIA; 0 for strided memory."""

    @property
    def load_bits(self) -> int:
        """Return the width in bits that the loads must have."""
        tensor = next(iter(self.launch.arguments.values()))
        cells = self.launch.constants["BLOCK"] // (32 * self.launch.num_warps)
        return int(min(128, cells * tensor.element_size() * 8))


@dataclass(frozen=True)
class Compiled:
    """Registers, memory and loads of a compiled kernel, and the verdict."""

    kernel: str
    target: str
    registers: int | None
    """Registers of a thread; None where the compiler does not say."""
    spills: int
    """Stores to local memory, or on AMD spilled vector registers."""
    stack: int
    """Bytes of local memory a thread."""
    wide_loads: bool
    """Logits are loaded as wide as they can be; on AMD, true."""
    shared: int
    """Bytes of shared memory a program."""
    seconds: float
    """Duration of the compilation."""
    problem: str | None
    """Reason why it does not pass; None where it does."""


def compile_all(targets: tuple[str, ...] = TARGETS) -> list[Compiled]:
    """Compile every case for every target. Raises RuntimeError under TRITON_INTERPRET=1, where nothing is compiled."""
    return [compile_case(case, target) for case in cases() for target in targets]


def cases() -> Iterator[Case]:
    """Yield launches that represent all: each kernel, its dtypes, ranges of classes, and both memory formats."""
    half, bf16, uint8 = torch.float16, torch.bfloat16, torch.uint8
    yield Case("focal, 10 classes, fp32", _focal(10), 10)
    yield Case("focal, 10 classes, bf16", _focal(10, dtype=bf16), 10)
    yield Case("focal, 10 classes, fp16", _focal(10, dtype=half), 10)
    yield Case("focal, 10 classes, fp32, without counts", _focal(10, counts=False), 10)
    yield Case("focal, 10 classes, fp32, without gradient", _focal(10, gradient=False), 10)
    yield Case("focal, 10 classes, fp32, gamma 0.5", _focal(10, gamma=0.5), 10)
    yield Case("focal, 10 classes, fp32, channels last", _focal(10, last=True), 0)
    yield Case("focal, 10 classes, fp32, per cell, uint8", _focal(10, per_cell=True, labels=uint8), 10)
    yield Case("focal, 2 classes, fp32", _focal(2), 2)
    yield Case("focal, 14 classes, fp32", _focal(14), 14)
    yield Case("focal, 21 classes, fp32", _focal(21, side=512), 21)
    yield Case("focal, 21 classes, bf16", _focal(21, side=512, dtype=bf16), 21)
    yield Case("focal, 32 classes, fp32", _focal(32), 32)
    yield Case("focal, 150 classes, fp32", _focal(150, side=512), 4)
    cropped = torch.empty_strided((3, 10, 3, 5, 7), (100000, 7000, 2000, 300, 17), device="meta")
    yield Case("focal, 10 classes, fp32, cropped", _focal_of(cropped), 0)
    one = torch.empty(1, 10, device="meta")
    yield Case("focal, 10 classes, fp32, one cell", _focal_of(one), 0)
    wide = torch.empty(2**18, 2, 128, 64, device="meta")
    yield Case("focal, 2 classes, fp32, 2**31 cells", _focal_of(wide), 2)
    yield Case("confusion, 10 classes, fp32", _confusion(10, torch.float32), 10)
    yield Case("confusion, 150 classes, bf16", _confusion(150, bf16), 4)
    yield Case("confusion, 10 classes, predictions int64", _confusion(10, torch.int64), 1)
    like = torch.empty(1024, 10, 16, 16, device="meta")
    scalar = like.new_empty(())
    yield Case("scale in place, fp32", plan_scale(like, scalar, scalar, like), 1)


def compile_case(case: Case, target: str) -> Compiled:
    """Compile a case for `sm_NN` or `gfxNNN` and check what it uses."""
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET=1 is set, so kernels are not compiled. Unset it, in a new process.")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = specialise(case.launch)
    nvidia = target.startswith("sm_")
    lanes = 32 if nvidia or re.fullmatch(r"gfx1\d{3}", target) else 64
    gpu = GPUTarget("cuda", int(target[3:]), lanes) if nvidia else GPUTarget("hip", target, lanes)
    start = time.perf_counter()
    if not nvidia:  # where tensors of less than 2 GB are reached by other instructions
        for position, value in enumerate(case.launch.arguments.values()):
            if isinstance(value, Tensor):
                attributes[(position,)] = [*attributes.get((position,), []), ["tt.pointer_range", 32]]
    source = ASTSource(case.launch.kernel, signature, constants, attributes)
    built = triton.compile(source, target=gpu, options=case.launch.options(nvidia))
    seconds = time.perf_counter() - start
    use = _nvidia_use(built.asm["cubin"], case) if nvidia else _amd_use(built.asm["amdgcn"])
    found = Compiled(case.name, target, *use, built.metadata.shared, seconds, None)
    return Compiled(**{**vars(found), "problem": _problem(found, nvidia)})


def specialise(launch: Launch) -> tuple[dict[str, Any], dict[Any, Any], dict[tuple[int, ...], Any]]:
    """Return signature, constants and attributes of a launch, as Triton's launcher finds them on a GPU.

    An argument of 1 is a constant; pointers, and numbers that 16 divides, are said to be multiples of 16, without which
    no load is wide.
    """
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    values = {**launch.arguments, **launch.constants}
    for position, name in enumerate(launch.kernel.arg_names):
        value = values[name]
        if name in launch.constants:
            signature[name], constants[(position,)] = "constexpr", value
        elif isinstance(value, tuple):
            signature[name] = tuple(_type(part) for part in value)
            for i, part in enumerate(value):
                if part == 1:
                    constants[(position, i)] = part
                elif part % 16 == 0:
                    attributes[(position, i)] = [["tt.divisibility", 16]]
        else:
            signature[name] = _type(value)
            if signature[name] == "constexpr":
                constants[(position,)] = value
            elif isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[(position,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if value == 1:
        return "constexpr"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _problem(found: Compiled, nvidia: bool) -> str | None:
    if found.stack:
        return f"{found.stack} bytes of stack a thread"
    if found.spills:
        return f"{found.spills} spills"
    if nvidia and (found.registers or 0) > MOST_REGISTERS:
        return f"{found.registers} registers, {MOST_REGISTERS} allowed"
    return None if found.wide_loads else "loads are narrower than they can be"


def _nvidia_use(cubin: bytes, case: Case) -> tuple[int | None, int, int, bool]:
    """Return registers, local stores, stack, and True for wide loads, by the disassembler of Triton."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        usage, code = (
            subprocess.run([tool, option, file], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers = re.search(r"REG:(\d+)", usage)
    stack = re.search(r"STACK:(\d+)", usage)
    assert registers is not None
    assert stack is not None
    loads = re.findall(r"\bLDG(\.[A-Z0-9.]+)?", code)
    widths = [next((int(part) for part in kind.split(".") if part in ("64", "128")), 32) for kind in loads]
    wide = sum(width >= case.load_bits for width in widths) >= case.loads
    return int(registers[1]), len(re.findall(r"\bSTL\b", code)), int(stack[1]), wide


def _amd_use(code: str) -> tuple[int | None, int, int, bool]:
    """Return vector registers, spilled registers and scratch bytes, from the assembly's metadata."""
    found = re.findall(r"\.(vgpr_count|vgpr_spill_count|private_segment_fixed_size):\s+(\d+)", code)
    counts = {name: int(number) for name, number in found}
    return counts["vgpr_count"], counts["vgpr_spill_count"], counts["private_segment_fixed_size"], True


def _focal(
    classes: int,
    side: int = 16,
    dtype: torch.dtype = torch.float32,
    gamma: float = 2.0,
    gradient: bool = True,
    counts: bool = True,
    per_cell: bool = False,
    last: bool = False,
    labels: torch.dtype = torch.int64,
) -> Launch:
    memory = torch.channels_last if last else torch.contiguous_format
    logits = torch.empty(64, classes, side, side, dtype=dtype, device="meta", memory_format=memory)
    return _focal_of(logits, gamma, gradient, counts, per_cell, labels)


def _focal_of(
    logits: Tensor,
    gamma: float = 2.0,
    gradient: bool = True,
    counts: bool = True,
    per_cell: bool = False,
    labels: torch.dtype = torch.int64,
) -> Launch:
    targets = torch.empty(logits.shape[0], *logits.shape[2:], dtype=labels, device="meta")
    floats, words = logits.new_empty(16, dtype=torch.float32), targets.new_empty(16, dtype=torch.int64)
    outputs = FocalOutputs(floats, torch.empty_like(logits), floats, words)
    setting = FocalSetting(floats, gamma, -100, "none" if per_cell else "mean", gradient, counts)
    return plan_focal(logits, targets, setting, outputs, Workspace.empty(logits.device))


def _confusion(classes: int, dtype: torch.dtype) -> Launch:
    ready = not dtype.is_floating_point
    values = torch.empty((64, 16, 16) if ready else (64, classes, 16, 16), dtype=dtype, device="meta")
    targets = torch.empty(64, 16, 16, dtype=torch.int64, device="meta")
    return plan_confusion(values, targets, -100, classes, ready, targets, Workspace.empty(values.device))


def compile_kernels() -> list[Compiled]:
    """Compile every kernel for every target and check it; RunError where nothing can be compiled."""
    where = "--compile-only"
    if find_spec("triton") is None:
        raise RunError("triton, which compiles the kernels, is not installed", where, do="Install it; it needs Linux.")
    if interpreted():
        raise RunError("TRITON_INTERPRET=1 is set, so nothing is compiled", where, do="Unset it.")
    return compile_all()
