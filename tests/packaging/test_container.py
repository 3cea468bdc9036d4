"""The controller's container image: built as its recipe says, and run with a root that cannot be written to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.packaging.conftest import OLDER, Packages
from tests.packaging.machine import ROOT, base, build, missing

RECIPE = ROOT / "packaging" / "container" / "Containerfile"
why = missing() or ("" if shutil.which("buildah") else "`buildah` is not installed")
pytestmark = pytest.mark.skipif(bool(why), reason=why or "images can be built")


# nspawn would make the user a home.
_AS_USER = [
    "setpriv",
    "--reuid=cellwall",
    "--regid=cellwall",
    "--clear-groups",
    "--bounding-set=-all",
    "--no-new-privs",
]


class Images:
    """Images in a folder of their own, built without a daemon."""

    def __init__(self, folder: Path) -> None:
        self._global = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def __call__(self, *arguments: str, cwd: Path = ROOT) -> str:
        done = subprocess.run(
            ["buildah", *self._global, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@contextmanager
def running(root: Path, data: Path, config: dict[str, Any], name: str, *arguments: str) -> Generator[int]:
    """Run an image's program in a container without network, and give the number of its process."""
    environment = [f"--setenv={one}" for one in config["Env"]]
    process = subprocess.Popen(
        ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--register=no", "--keep-unit",
         "--private-network", "--as-pid2", "--read-only", *environment,
         f"--bind={data}:/var/lib/cellwall/controller", "--console=pipe", "--", *_AS_USER,
         *config["Entrypoint"], *arguments],
        stdin=subprocess.DEVNULL, stdout=(data.parent / "out").open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 20
        while not (found := _program(process.pid)):
            assert time.monotonic() < until and process.poll() is None, (data.parent / "out").read_text()
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _program(nspawn: int) -> int:
    waiting = [nspawn]
    while waiting:
        pid = waiting.pop()
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # What starts it, with the same words among its arguments, goes on to become it.
            if b"run" in argv[:5] and b"--advertise" in argv:
                return pid
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except FileNotFoundError:
            continue
    return 0


def test_the_image_runs_read_only_as_a_user_without_rights(packages: Packages, tmp_path: Path) -> None:
    build(packages.tree, packages.tree / "dist", "--version", OLDER, "controller")
    images = Images(tmp_path)
    (tmp_path / "Base").write_text("FROM scratch\nADD debian-12.tar /\n")
    subprocess.run(["tar", "-C", str(base()), "-cf", str(tmp_path / "debian-12.tar"), "."], check=True)
    images("bud", "--isolation", "chroot", "-f", "Base", "-t", "localhost/debian-12", ".", cwd=tmp_path)
    (tmp_path / "debian-12.tar").unlink()
    images(
        "bud", "--isolation", "chroot", "--format", "docker", "--build-arg", "DEBIAN=localhost/debian-12",
        "-f", str(RECIPE), "-t", "cellwall-controller", ".", cwd=packages.tree,
    )  # fmt: skip
    config = json.loads(images("inspect", "--type", "image", "cellwall-controller"))["Docker"]["config"]
    assert config["User"] == "cellwall:cellwall" and config["Healthcheck"]["Test"][0] == "CMD"
    container = images("from", "cellwall-controller")
    root = Path(images("mount", container))
    assert not list((root / "packages").glob("*")) and not list((root / "var/lib/apt/lists").iterdir())
    user = (root / "etc/passwd").read_text().split("cellwall:x:")[1].split(":")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, int(user[0]), int(user[1]))
    with running(root, data, config, f"cwp{os.getpid()}", "--advertise", "https://127.0.0.1:7443") as program:
        assert os.stat(f"/proc/{program}").st_uid == int(user[0])
        enter = ["nsenter", f"--target={program}", "--mount", "--net", "--pid", "--root", f"--setuid={user[0]}", "--"]
        check = ["env", "-i", *config["Env"], *config["Healthcheck"]["Test"][1:]]
        until = time.monotonic() + 60
        while (done := subprocess.run([*enter, *check], capture_output=True, text=True, check=False)).returncode:
            assert time.monotonic() < until, done.stderr + (tmp_path / "out").read_text()
            time.sleep(0.5)
        wrote = subprocess.run([*enter, "touch", "/usr/x", "/var/tmp/x"], capture_output=True, text=True)
        assert wrote.stderr.count("Read-only file system") == 2, wrote.stderr
        rights = Path(f"/proc/{program}/status").read_text()
        assert "CapEff:\t0000000000000000" in rights
    images("rm", container)
