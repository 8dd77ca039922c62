"""What the page answers, as HTML; whatever a visitor's file is called is escaped."""
import base64
import html
import io
import math

from PIL import Image

from ..errors import InputError
from .jobs import Job
from .uploads import load_upload

__all__ = ['MODEL', 'OWN', 'certainty', 'decibel', 'message', 'preview', 'requested', 'summary']

MODEL, OWN = 'a model makes it', 'I have one, of any method (SR)'
PREVIEW = 160  # pixels
UNSURE = 3.  # dB between the A that was found and the next


def message(text, kind):
    """A line of text, 'refused' or 'done'."""
    role = 'alert' if kind == 'refused' else 'status'
    return f'<p class="pd-message {kind}" role="{role}">{html.escape(text)}</p>'


def preview(path, limits):
    """What an upload is, or why it is not taken.

    Args:
        path (str | None): Of the upload.
        limits (Limits): What is allowed.

    Returns:
        str: HTML with the picture in it, small.
    """
    if path is None:
        return ''
    try:
        picture = load_upload(path, limits)
    except InputError as error:
        return message(str(error), 'refused')
    height, width = picture.pixels.shape[:2]
    image = Image.fromarray(picture.as_array())
    image.thumbnail((PREVIEW, PREVIEW))
    file = io.BytesIO()
    image.save(file, 'PNG')
    data = base64.b64encode(file.getvalue()).decode()
    kind = ('grey' if picture.grey else 'RGB') + (', alpha' if picture.alpha is not None else '')
    return (f'<figure class="pd-preview"><img alt="the upload" src="data:image/png;base64,{data}">'
            f'<figcaption>{width} × {height}, {kind}</figcaption></figure>')


def requested(models, limits, lr, sr, source, model, operator, strength, noise, low, high):
    """The :class:`Job` of what is on the page.

    Args:
        models (dict[str, str]): What is offered -> what :class:`PDInferencer` takes.
        limits (Limits): What is allowed.
        lr, sr, source, model, operator, strength, noise, low, high: The fields.

    Raises:
        InputError: what is missing or cannot be; one line.
    """
    if source not in (MODEL, OWN):
        raise InputError(f'expected {MODEL!r} or {OWN!r}, got {str(source)[:80]!r}')
    own = source == OWN
    if lr and own and not sr:
        raise InputError('choose the SR picture as well, or let a model make one')
    if not own and model not in models:
        raise InputError(f'expected one of the models on the page, got {str(model)[:80]!r}')
    for name, value in (('strength', strength), ('noise', noise), ('lowest value', low),
                        ('highest value', high)):
        if value is None:
            raise InputError(f'{name}: expected a number, got none')
    bounds = None if (low, high) == (0, 255) else (low, high)
    return Job(lr, sr if own else None, None if own else models[model], operator, strength,
               noise or None, bounds, limits)


def decibel(value):
    """dB, or 'exact' where nothing differs."""
    return 'exact' if value == math.inf else f'{value:.2f} dB'


def certainty(found):
    """How sure an A is that was found, in words.

    Args:
        found (dict): Of :attr:`Result.figures`.
    """
    text = f'A of x_r is closest to the LR for {found["name"]}: {decibel(found["psnr"])}'
    if 'next_name' in found:
        text += f'; next: {found["next_name"]}, {decibel(found["next_psnr"])}'
        if found['psnr'] - found['next_psnr'] < UNSURE:
            text += '. That is close: if you know how the LR was made, choose it'
    return text


def summary(figures, exact_wanted):
    """The figures of a :class:`Result`, with a sentence above.

    Args:
        figures (dict): Its.
        exact_wanted (bool): Whether A of the file was to be the LR (no noise, strength 1).
    """
    total, missed = figures['lr_values'], figures['lr_values_unmatched']
    if not missed:
        text = f'Exact: A of the file gives all {total} values of the LR back.'
    else:
        text = f'A of the file gives {total - missed} of the {total} values of the LR back'
        text += '.' if exact_wanted else (
            ': with a noisy LR or a strength below 1 not all of them are wanted.')
    operator = figures['operator']
    if figures['made_by'] not in (None, 'float'):
        operator += f', in the arithmetic of {figures["made_by"]}'
    rows = [('PSNR(LR) before', decibel(figures['psnr_lr_before'])),
            ('PSNR(LR) after', decibel(figures['psnr_lr_after'])),
            ('LR values not given back', f'{missed} of {total}'), ('A', operator)]
    if figures['found'] is not None:
        rows.append(('how A was found', certainty(figures['found'])))
    rows.append(('size', '{} × {}, {} times the LR'.format(*figures['size'], figures['scale'])))
    cells = ''.join(f'<tr><th scope="row">{key}</th><td>{html.escape(value)}</td></tr>'
                    for key, value in rows)
    return message(text, 'done') + f'<table class="pd-figures">{cells}</table>'
