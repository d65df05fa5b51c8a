"""The machine code of the hot loops: a register tile that the compiler keeps in memory runs several times slower.

Read from the objects of the newest release build in ``build/``, of whichever kind.  A hot loop is an innermost
one that is mostly multiply-adds.  In those of the common kernels (``TILES``) no vector may be stored on the stack or
loaded from it, in others one for ten multiply-adds, but for what ``ALLOWED`` lists.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

TILES = re.compile(
    r"pixel_tile<|channel_tile<|stem_tile<|panel_tile<|Winograd<|put_\w+<\w+, [46][,>]|run_row<|channel_run<|in_place<"
)
# Loops with more operands than there are registers: vectors that one may store, and may load per 100 multiply-adds.
ALLOWED = {
    ("avx512", r"in_place<\w+, 5, "): (2, 40),  # 25 weights, and the inputs of two tap columns
    ("avx512", r"small_planes<\w+, 5, "): (2, 30),  # 25 weights, and the order of lanes of each tap
    ("avx512", r"Winograd<[57], 2, 6, \w+>::input"): (1, 5),  # a patch half transformed waits in memory
    ("avx512", r"expand_tiles<"): (5, 15),  # 24 vectors between its two passes, 8 constants
    ("avx2", r"planes_of<"): (10, 70),  # the sums of four planes and their weights: too much for 16 registers
    ("avx2", r"in_place<"): (0, 250),  # 9 or 25 weights and the masks of the columns
    ("avx2", r"Winograd<[57], 2, 6, \w+>::input"): (1, 10),  # as above
    # eight inputs and seven constants, or six sums
    ("avx2", r"input_along<\w+, [78]>"): (2, 45),
    ("avx2", r"output_along<\w+, 8, 6>"): (0, 50),
}
# Weights are transformed once; activations read their many constants from memory.
COLD = re.compile(r"Winograd<\d, \d, \d, \w+>::weight|transform_weight<")
COLD_FILES = ("batch_norm_loops", "elementwise_loops", "rows")

INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*([^<]*)")
STACK = re.compile(r"\(%r[sb]p[,)]")


class Instruction(NamedTuple):
    address: int
    name: str
    operands: str

    @property
    def multiplies(self) -> bool:
        return self.name.startswith(("vfmadd", "vfnmadd", "vfmsub", "vfnmsub"))

    @property
    def loads_vector(self) -> bool:
        """A vector register's worth from the stack, also as an operand of arithmetic; no address."""
        worth = "mm" in self.operands and self.name != "vmovq"
        return bool(STACK.search(self.operands)) and worth and not self.stores_vector

    @property
    def stores_vector(self) -> bool:
        return self.name.startswith("vmov") and bool(re.match(r"%[xyz]mm\d+,.*\(%r[sb]p[,)]", self.operands))


class Loop(NamedTuple):
    function: str
    body: list[Instruction]

    @property
    def multiplies(self) -> int:
        return sum(i.multiplies for i in self.body)

    @property
    def hot(self) -> bool:
        return self.multiplies >= 6 and self.multiplies >= 0.15 * len(self.body) and not COLD.search(self.function)

    def fault(self, isa: str) -> str | None:
        """Say what is wrong with a hot loop."""
        stores = sum(i.stores_vector for i in self.body)
        loads = sum(i.loads_vector for i in self.body)
        may_store, may_load = (0, 0) if TILES.search(self.function) else (self.multiplies // 10, 10)
        for (where, name), allowed in ALLOWED.items():
            if where == isa and re.search(name, self.function):
                may_store, may_load = allowed
        if stores <= may_store and 100 * loads <= may_load * self.multiplies:
            return None
        return f"{self.function}: {stores} stores, {loads} loads of spilled vectors, {self.multiplies} multiply-adds"


def _functions(object_file: Path) -> Iterator[tuple[str, list[Instruction]]]:
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(object_file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in text.split("\n\n"):
        title = re.search(r"^[0-9a-f]+ <(.*)>:$", block, re.MULTILINE)
        if title:
            found = (INSTRUCTION.match(line) for line in block.splitlines())
            yield title[1], [Instruction(int(m[1], 16), m[2], m[3].strip()) for m in found if m]


def _loops(object_file: Path) -> Iterator[Loop]:
    """The innermost loops: from the target of a jump backwards to that jump."""
    for function, code in _functions(object_file):
        index = {instruction.address: i for i, instruction in enumerate(code)}
        jumps = []
        for i, instruction in enumerate(code):
            target = re.match(r"[0-9a-f]+$", instruction.operands)
            if instruction.name.startswith("j") and target and index.get(int(target[0], 16), i + 1) <= i:
                jumps.append((index[int(target[0], 16)], i))
        for first, last in jumps:
            if not any((a, b) != (first, last) and first <= a and b <= last for a, b in jumps):
                yield Loop(function, code[first : last + 1])


def _build() -> tuple[Path | None, str]:
    """Find the folder of kernel objects of the newest release build made with GCC, or say why there is none."""
    if shutil.which("objdump") is None:
        return None, "objdump is not installed"
    builds = []
    for cache in ROOT.glob("build/**/CMakeCache.txt"):
        text = cache.read_text()
        compiler = "".join(p.read_text() for p in cache.parent.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"))
        objects = cache.parent / "CMakeFiles/fastconv_core.dir/csrc/algorithms"
        if (
            "CMAKE_BUILD_TYPE:STRING=Release" in text
            and "FASTCONV_SANITIZE:STRING=\n" in text
            and 'CMAKE_CXX_COMPILER_ID "GNU"' in compiler
            and any(objects.glob("*_avx512.cpp.o"))
        ):
            builds.append((max(p.stat().st_mtime for p in objects.glob("*.o")), objects))
    if not builds:
        return None, "there is no release build by GCC for x86-64 under build/"
    when, newest = max(builds)
    if when < max(p.stat().st_mtime for p in ROOT.glob("csrc/algorithms/*.hpp")):
        return None, f"the objects of the newest build, {newest}, are older than the kernels"
    return newest, ""


OBJECTS, REASON = _build()


@pytest.mark.skipif(OBJECTS is None, reason=REASON)
@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_no_hot_loop_spills(isa: str) -> None:
    assert OBJECTS is not None
    files = [p for p in sorted(OBJECTS.glob(f"*_{isa}.cpp.o")) if not p.name.startswith(COLD_FILES)]
    hot = [loop for path in files for loop in _loops(path) if loop.hot]
    seen = "\n".join({loop.function for loop in hot})
    tiles = ("pixel_tile<float, 6, ", "channel_tile<float, 6, 2>", "input_along<float, 6>")
    for name in (*tiles, "in_place<float, 3, 3, 1>", "run_row<float, 3, 1|channel_run<float>"):
        assert re.search(name, seen), f"{name} has no loop that looks hot: has it been renamed?"
    assert [fault for loop in hot if (fault := loop.fault(isa))] == []


TILE = """
typedef float V __attribute__((vector_size(64)));
void tile(const float* x, const float* w, float* out, long steps) {
    V sum[ROWS][4] = {};
    for (long i = 0; i < steps; i++)
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) sum[r][j] += *(const V*)(x + 64 * i + 16 * j) * w[ROWS * i + r];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < 4; j++) *(V*)(out + 64 * r + 16 * j) = sum[r][j];
}
"""


@pytest.mark.parametrize(("rows", "spills"), [(6, False), (10, True)])
def test_spills_are_seen(tmp_path: Path, rows: int, spills: bool) -> None:
    """Tiles of 6 x 4 and of 10 x 4 vectors, where there are 32 registers."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None or shutil.which("objdump") is None:
        pytest.skip("no compiler or no objdump")
    source, target = tmp_path / "tile.cpp", tmp_path / "tile.o"
    source.write_text(TILE.replace("ROWS", str(rows)))
    flags = ["-O3", "-mavx512f", "-ffp-contract=fast", "-c", str(source), "-o", str(target)]
    if subprocess.run([compiler, *flags], capture_output=True).returncode != 0:
        pytest.skip(f"{compiler} does not compile for AVX-512")
    hot = [loop for loop in _loops(target) if loop.hot]
    assert hot
    assert any(loop.fault("avx512") for loop in hot) == spills
