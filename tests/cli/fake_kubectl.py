"""A kubectl that prints what a test wrote down: objects, and one list of events for each watch that is started."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Object = dict[str, Any]


def install(directory: Path, obj: Object, watches: Sequence[Sequence[Object]] = (), **answers: Object | str) -> Path:
    """Write the program and its answers; its path, for the environment variable KUBECTL.

    `answers` are those for other resources: `configmap`, `leases` of all namespaces, `lease`; a string is an error of kubectl.
    """
    for name, text in answers.items():
        (directory / f"{name}.json").write_text(text if isinstance(text, str) else json.dumps(text))
    (directory / "object.json").write_text(json.dumps(obj))
    for number, events in enumerate(watches):
        (directory / f"watch-{number}.json").write_text("\n".join(json.dumps(event) for event in events))
    program = directory / "kubectl"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = {str(directory)!r}\n{Path(__file__).read_text()}\nmain()\n"
    )
    program.chmod(0o755)
    return program


def answer(file: Path, otherwise: Object) -> None:
    """What a test wrote into this file; a text that is no JSON is an error of kubectl."""
    text = file.read_text() if file.exists() else json.dumps(otherwise)
    if not text.startswith("{"):
        sys.exit(text)
    print(text)


def main() -> None:
    """Answer one call: a get, a list, or the next watch. After the last of them, a watch waits for ever."""
    directory = Path(sys.argv[0])
    if "configmaps" in sys.argv:
        answer(directory / "configmap.json", {"items": []})
    elif "leases.coordination.k8s.io" in sys.argv:
        answer(directory / ("leases.json" if "-A" in sys.argv else "lease.json"), {"items": []})
    elif sys.argv[2:4] == ["sessionrolloutactions.sessionrollout.dev", "-o"]:
        print(json.dumps({"items": []}))
    elif "--watch" not in sys.argv:
        print((directory / "object.json").read_text())
    else:
        watches = sorted(directory.glob("watch-*.json"))
        if watches:
            print(watches[0].read_text(), flush=True)
            watches[0].unlink()
        else:
            signal.pause()
