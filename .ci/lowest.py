"""Print the lowest versions that pyproject.toml allows, as requirements."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    print(requirement.replace(">=", "==").replace(" ", ""))
