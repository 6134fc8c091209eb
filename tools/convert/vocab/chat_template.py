"""The chat templates of a Hugging Face folder.

Owns which of several wins. As in transformers 5: the .jinja files take the place of what tokenizer_config.json says.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from lazygguf.errors import ModelFileError

from ..json_file import optional_json, read_text, shown

Templates = list[dict[str, str]]  # "name" and "template" of each, as the gguf package takes them


def read_chat_template(folder: Path, notes: list[str]) -> Any:
    """The template's text, or named templates, or None where the folder has none."""
    main, named_folder = folder / "chat_template.jinja", folder / "additional_chat_templates"
    files = {"default": main} if main.is_file() else {}
    if named_folder.is_dir():
        files.update({path.stem: path for path in sorted(named_folder.glob("*.jinja")) if path.is_file()})
    config = folder / "tokenizer_config.json"
    said = optional_json(config).get("chat_template")
    if files:
        if said is not None:
            notes.append(f"the chat template of {config.name} is left out: {_places(files, folder)} takes its place")
        return _checked(folder, [{"name": name, "template": read_text(path)} for name, path in files.items()])
    if said is None:
        config = folder / "chat_template.json"  # of processors, before .jinja files
        said = optional_json(config).get("chat_template")
    return None if said is None else _of_json(config, said)


def _places(files: dict[str, Path], folder: Path) -> str:
    return ", ".join(path.relative_to(folder).as_posix() for path in files.values())


def _of_json(path: Path, said: Any) -> Any:
    """chat_template of a JSON file: a text, a table of name and text, or a list of both."""
    if isinstance(said, str):
        return said
    if isinstance(said, dict):
        said = [{"name": name, "template": template} for name, template in said.items()]
    if not isinstance(said, list):
        raise ModelFileError(f"{path}: chat_template is {shown(said)}, expected a text or named templates")
    for entry in said:
        texts = [entry.get(key) for key in ("name", "template")] if isinstance(entry, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ModelFileError(f"{path}: chat_template holds {shown(entry)}, expected a name and a template")
    return _checked(path, [{"name": entry["name"], "template": entry["template"]} for entry in said])


def _checked(path: Path, templates: Templates) -> Any:
    """One template that is the default as its text; the names must stay different in a GGUF key."""
    if [entry["name"] for entry in templates] == ["default"]:
        return templates[0]["template"]
    seen: dict[str, str] = {}
    for entry in templates:
        key = "".join(c if c in string.ascii_letters + string.digits else "_" for c in entry["name"])
        if not key or key in seen:
            other = f" and {shown(seen[key])}" if key in seen else ""
            raise ModelFileError(
                f"{path}: the chat template's name {shown(entry['name'])}{other} cannot be a key of a GGUF file"
            )
        seen[key] = entry["name"]
    return templates or None
