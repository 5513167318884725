"""Chat templates, rendered as transformers renders them.

render_template("{% for m in messages %}{{ m['content'] }};{% endfor %}", "here", {
    "messages": [{"role": "user", "content": "hi"}]})   # "hi;"
"""

import functools
import json

from flanjax.errors import ConfigError


def render_template(template: str, where: str, variables: dict) -> str:
    """Returns the rendered template.

    `strftime_now` stays undefined: templates then use the date they carry, and a
    prompt is the same tomorrow.

    Args:
      template: Jinja text, from a model's files and so not trusted: it runs in a
        sandbox.
      where: what the template belongs to, for messages.
      variables: `messages`, `add_generation_prompt` and the special tokens' texts.

    Raises:
      ConfigError: the template is broken or refuses the messages.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str):
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(template).render(**variables)
    except jinja2.TemplateError as error:
        raise ConfigError(f"cannot render the chat: {error}", where=where) from error
