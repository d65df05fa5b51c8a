"""Colours and layout: one palette for the page and its pictures, light and dark."""

from __future__ import annotations

__all__ = ["PAGE", "PICTURE"]

# readable on white and on near black; every library also has a shape of its own
_LIBRARIES = {
    "torch": "#e2562d", "onnxruntime": "#2f7fd6", "openvino": "#9060d8", "ncnn": "#2a9d5c", "mnn": "#129aa8",
    "tensorflow": "#d39300", "jax": "#d2519b", "scipy": "#75839a", "opencv": "#a36f3e",
    "numpy": "#2f7fd6", "numba": "#2a9d5c", "cython": "#d39300", "reference": "#75839a",
}  # fmt: skip
_LIGHT = {"ink": "#16191d", "soft": "#5b6470", "paper": "#ffffff", "card": "#f5f6f8", "grid": "#e3e6ea",
          "bad": "#b3261e", "good": "#1a7f4b", "shade": "#fbeceb"}  # fmt: skip
_DARK = {"ink": "#eef1f4", "soft": "#a2abb6", "paper": "#14171a", "card": "#1d2125", "grid": "#33393f",
         "bad": "#ff8a80", "good": "#63d297", "shade": "#2c1f20"}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


_ROOT = f":root{{{_variables(_LIGHT)}}}@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}"
_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif'
_MARKS = f"""
svg text{{font:13px {_FONT};fill:var(--ink)}}
svg .tick{{font-size:12px;fill:var(--soft)}}
svg .said{{font-size:12px;font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:3px}}
svg .grid,svg .rule{{stroke:var(--grid)}}
svg .link{{stroke:var(--soft);stroke-opacity:.35}}
svg .equal{{stroke:var(--ink);stroke-width:1.6}}
svg .roof{{stroke:var(--ink);stroke-width:2;stroke-linecap:round}}
svg .slower{{fill:var(--shade)}}
svg .dot{{stroke:var(--paper);stroke-width:1.2}}
svg .hollow{{fill:var(--paper);stroke-width:1.6}}
svg .dot.ours{{fill:var(--ink)}}
.bar.ours{{background:var(--ink)}}
""" + "".join(
    f"svg .dot.lib-{n}{{fill:{c}}}svg .hollow.lib-{n}{{stroke:{c}}}.bar.lib-{n}{{background:{c}}}\n"
    for n, c in _LIBRARIES.items()
)

PICTURE = _ROOT + "svg{background:var(--paper)}" + _MARKS

_LAYOUT = f"""
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0 auto;padding:20px 16px 60px;max-width:952px;
background:var(--paper);color:var(--ink);font:16px/1.5 {_FONT}}}
"""
_RULES = """
h1{font-size:1.05rem;font-weight:600;color:var(--soft);margin:0 0 6px}
.lead{font-size:1.45rem;line-height:1.3;font-weight:650;margin:0 0 6px}
h2{font-size:1.15rem;margin:42px 0 4px;padding-top:14px;border-top:1px solid var(--grid)}
h3{font-size:1rem;margin:18px 0 2px}
p{margin:6px 0 10px}
.soft{color:var(--soft);font-size:.9rem}
svg{max-width:100%;height:auto;display:block}
.narrow{display:none}
.keys{display:flex;flex-wrap:wrap;gap:4px 14px;margin:8px 0 2px;font-size:.88rem}
.keys span{display:inline-flex;align-items:center;gap:6px}
.keys svg{width:14px;height:14px}
.note{background:var(--card);border-left:4px solid var(--bad);padding:10px 14px;margin:12px 0;border-radius:4px}
.note ul,.plain{margin:4px 0;padding-left:20px;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;color:var(--soft)}
td,th{padding:5px 10px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}
.scroll{overflow-x:auto}
.bad{color:var(--bad);font-weight:600}
.good{color:var(--good);font-weight:600}
details{border-bottom:1px solid var(--grid)}
summary{cursor:pointer;padding:7px 0;display:flex;gap:10px;justify-content:space-between;align-items:baseline}
summary::-webkit-details-marker{display:none}
summary::before{content:"▸";color:var(--soft)}
details[open]>summary::before{content:"▾"}
summary .name{flex:1;overflow-wrap:anywhere}
summary .n{white-space:nowrap;font-variant-numeric:tabular-nums}
.bars{display:grid;grid-template-columns:minmax(92px,38%) 1fr auto;gap:3px 8px;align-items:center;font-size:.82rem;
padding:2px 0 12px}
.bars .who{overflow-wrap:anywhere;line-height:1.15}
.bars .soft{font-size:inherit}
.track,.bar{height:12px}
.bar{border-radius:2px;min-width:2px;background:var(--soft)}
.bars .n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
@media (max-width:640px){
.wide{display:none}.narrow{display:block}.narrow svg .label{font-size:12px}
.lead{font-size:1.2rem}body{padding:16px 14px 50px}}
"""

PAGE = _ROOT + _MARKS + _LAYOUT + _RULES
