"""A page from its template: all that it needs is in it, and its security policy forbids every request."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ...results.overfit_signals import optional

_TEMPLATES = Path(__file__).parent / "template"


def document(template: str, script: str | None = None, pictures: bool = False, **values: Any) -> bytes:
    """Fill a template with values, every one of them escaped.

    Args:
        script: file of the one script that may run.
        pictures: whether pictures may be shown; only those that stand in the page itself.
    """
    # file names and what others wrote into a dataset are not to be trusted
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(optional=optional, code=_code)
    style = _text("report.css")
    rules = ["default-src 'none'", f"style-src {_hash(style)}"]
    if script is not None:
        values["script"] = _text(script)
        rules.append(f"script-src {_hash(values['script'])}")
    if pictures:
        rules.append("img-src data:")
    policy = "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])
    text = environment.get_template(template).render(style=style, policy=policy, **values)
    # a file name of other bytes than UTF-8 is shown by its escapes
    return text.encode("utf-8", errors="backslashreplace")


def _text(name: str) -> Markup:
    """A file of the package's own, which is not escaped."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _code(text: str) -> Markup:
    """The text with what stands between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)
