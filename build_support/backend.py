"""The build backend: setuptools, plus the two start-up files at the top of the wheel.

setuptools has no declarative way to put a .pth file into site-packages, and its build_py hook is not used for
editable installs. A wheel is a zip archive: both kinds are built by setuptools and then rewritten with the
files added. They are in RECORD, so that pip removes them when it uninstalls.
"""

import base64
import hashlib
import os
import zipfile
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  every other hook is setuptools' own

START_FILES = ("zmqmr.pth", "zmqmr.start")
HERE = os.path.dirname(os.path.abspath(__file__))


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """PEP 517's hook; the name of the wheel in `wheel_directory`."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return add_start_files(wheel_directory, name)


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """PEP 660's hook; the name of the wheel in `wheel_directory`."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return add_start_files(wheel_directory, name)


def add_start_files(wheel_directory: str, name: str) -> str:
    """Rewrite the wheel with the start-up files in it and in its RECORD; its name."""
    path = os.path.join(wheel_directory, name)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED) as new:
        members = old.infolist()
        record = next(member for member in members if member.filename.endswith(".dist-info/RECORD"))
        members.remove(record)
        for member in members:
            new.writestr(member, old.read(member))
        lines = old.read(record).decode()
        for file_name in START_FILES:
            with open(os.path.join(HERE, file_name), "rb") as file:
                content = file.read()
            new.writestr(zipfile.ZipInfo(file_name, record.date_time), content)
            lines += _record_line(file_name, content)
        new.writestr(record, lines)
    os.replace(path + ".new", path)
    return name


def _record_line(file_name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"{file_name},sha256={digest},{len(content)}\n"
