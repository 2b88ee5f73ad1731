"""Does installing the wheel on Colab change what Colab has? `make colab` asks uv, with a network.

    python tests/colab/dry_run.py dist/geopeft_nb-0.1.0-py3-none-any.whl

Packages of `pins.txt` are made known to uv as installed, by their metadata alone; nothing is
installed.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PYTHON = "3.13"
PINS = Path(__file__).with_name("pins.txt")
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"


def pins() -> dict[str, str]:
    """Return package -> version of Colab's list."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(encoding="utf-8"), re.M))


def dry_run(wheel: str) -> str:
    """Return what uv says it would do on a machine that has the pins."""
    with TemporaryDirectory() as folder:
        for name, version in pins().items():
            about = Path(folder) / f"{name.replace('-', '_')}-{version}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(METADATA.format(name, version), encoding="utf-8")
            (about / "RECORD").write_text("", encoding="utf-8")
        command = ["uv", "pip", "install", "--dry-run", "--target", folder, wheel]
        command += ["--python-version", PYTHON, "--python-platform", "linux"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stderr


def main() -> None:
    """Print the plan; fail if a package that Colab has would change."""
    said = dry_run(sys.argv[1])
    print(said)
    if changed := re.findall(r"^ [-~] (\S+)", said, re.M):
        sys.exit(f"Colab's own would change: {', '.join(changed)}.")
    print(f"None of the {len(pins())} packages of {PINS.name} would change.")


if __name__ == "__main__":
    main()
