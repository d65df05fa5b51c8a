from fastconv.backends.protocol import Array
from fastconv.geometry import Size

def max_pool(
    x: Array, out: Array, least: Array, columns: Array, kernel: Size, stride: Size, dilation: Size, before: Size
) -> None: ...
def max_pool_with_indices(
    x: Array,
    out: Array,
    indices: Array,
    least: Array,
    columns: Array,
    rows: Array,
    kernel: Size,
    stride: Size,
    dilation: Size,
    before: Size,
) -> None: ...
def max_pool_backward(
    dy: Array,
    x: Array,
    dx: Array,
    first_only: bool,
    split: bool,
    least: Array,
    columns: Array,
    rows: Array,
    y: Array,
    found: Array,
    kernel: Size,
    stride: Size,
    dilation: Size,
    before: Size,
) -> None: ...
def avg_pool(
    x: Array,
    out: Array,
    depths: Array,
    heights: Array,
    widths: Array,
    columns: Array,
    sums: Array,
    kernel: Size,
    stride: Size,
    dilation: Size,
    before: Size,
) -> None: ...
def avg_pool_backward(
    dy: Array,
    dx: Array,
    depths: Array,
    heights: Array,
    widths: Array,
    columns: Array,
    kernel: Size,
    stride: Size,
    dilation: Size,
    before: Size,
) -> None: ...
