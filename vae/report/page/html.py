"""HTML of a page, from its template: the page holds everything, and its security policy forbids every request."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ...results.signals import optional

_TEMPLATES = Path(__file__).parent / "template"


def document(template: str, script: str | None = None, pictures: bool = False, **values: Any) -> bytes:
    """Return the template filled with the values, as UTF-8; every value is escaped.

    Args:
        script: file name of the only script that may run.
        pictures: allow pictures that the page itself holds.
    """
    # file names and attributes of a dataset are untrusted
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(optional=optional, code=_code, log_bar=_log_bar)
    style = _text("report.css")
    rules = ["default-src 'none'", f"style-src {_hash(style)}"]
    if script is not None:
        values["script"] = _text(script)
        rules.append(f"script-src {_hash(values['script'])}")
    if pictures:
        rules.append("img-src data:")
    policy = "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])
    text = environment.get_template(template).render(style=style, policy=policy, **values)
    # a file name that is not UTF-8 is shown with escapes
    return text.encode("utf-8", errors="backslashreplace")


def _text(name: str) -> Markup:
    """Return a template file of the package, which is trusted and not escaped."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    """Return the name of an inline style or script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _log_bar(share: float) -> float:
    """Return the length of a bar in percent: four decades up to a share of 1, so that rare classes are visible."""
    return 100 * max(0.02, 1 + math.log10(share) / 4) if share > 0 else 0.0


def _code(text: str) -> Markup:
    """Return the text as HTML, with the parts between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)
