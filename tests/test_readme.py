"""README says what is true: its table of settings is that of the source."""

import importlib.util
from pathlib import Path

from zmqmr.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_of_settings_is_generated_from_the_source() -> None:
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / "scripts" / "settings_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()

    assert module.with_table(readme) == readme, "run: python scripts/settings_table.py --write"
    fields = {f"`ZMQMR_{name.upper()}`" for name in Settings.__dataclass_fields__}
    assert {name for name in fields if name not in module.table()} == set()


def test_readme_has_exactly_two_set_up_commands_and_both_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Set up")[1].split("\n## ")[0]
    commands = [
        line.split("`")[-2] for line in section.splitlines() if line.startswith("| ") and "`scripts/" in line
    ]

    assert commands == ["scripts/demo", "scripts/test"]
    assert all((ROOT / command).stat().st_mode & 0o111 for command in commands)
