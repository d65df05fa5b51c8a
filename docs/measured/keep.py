"""Keep of a report of ``fastconv bench --json`` what the documentation shows: python docs/measured/keep.py run.json

One thread, one image, the usual allocator; written to layers.json beside this file. Layers that were measured again
may follow in more files: the last one that holds a layer counts.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any


def keep(report: dict[str, Any]) -> dict[str, Any]:
    """What the pages show of a report: all times of one thread, and of one image where the layer ran on one."""

    def shown(row: dict[str, Any]) -> bool:
        usual = not row["contender"].endswith("(default allocator)")
        return (
            usual and row["seconds"] is not None and row["threads"] == 1 and (row["batch"] == 1 or row["op"] == "train")
        )

    fields = ("layer", "contender", "mode", "seconds", "turns", "disturbed")
    rows = [{name: row[name] for name in fields} for row in report["rows"] if shown(row)]
    return {name: report[name] for name in ("schema", "command", "date", "peers", "machine")} | {"rows": rows}


def main(*sources: str) -> None:
    reports = [keep(json.loads(pathlib.Path(source).read_text(encoding="utf-8"))) for source in sources]
    layers: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in report.pop("rows"):
            found.setdefault(row["layer"], []).append(row)
        layers.update(found)
    rows = ",\n".join("    " + json.dumps(row) for layer in layers.values() for row in layer)
    head = json.dumps(reports[0], indent=2)[:-2]
    target = pathlib.Path(__file__).resolve().parent / "layers.json"
    target.write_text(f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n', encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
