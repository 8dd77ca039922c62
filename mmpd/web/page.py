"""The page itself, of Gradio's parts."""
import logging
from pathlib import Path

import gradio as gr

from ..errors import InputError
from .operators import CHOICES, USUAL
from .replies import MODEL, OWN, message, preview, requested, summary

__all__ = ['CSS', 'Handlers', 'build_page', 'theme']

LOG = logging.getLogger('mmpd.web')
TYPES = ['.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp']
BROKEN = 'something went wrong here; the host can see what in the log'
FONTS = ['system-ui', 'Segoe UI', 'Roboto', 'Helvetica', 'Arial', 'sans-serif']
CSS = Path(__file__).with_name('page.css').read_text()
# how parts of one kind look
ROW, COLUMN = dict(equal_height=False), dict(min_width=300)
UPLOAD = dict(file_types=TYPES, height=110)
LEVEL = dict(minimum=0, maximum=255)  # a grey level
BOUND = dict(LEVEL, min_width=100)
PICTURES = dict(format='png', buttons=['fullscreen'], interactive=False)

INTRO = """# Consistent super-resolution
A super-resolved picture is *consistent* when the degradation **A** that made the LR, applied to it,
gives the LR back. Most are not. This page takes any picture x<sub>r</sub> of an LR y and replaces
what A sees of it, its range space, by what the LR says:
**x̂ = x<sub>r</sub> + A†(y − A x<sub>r</sub>)**. Detail that A does not see stays.
"""
ABOUT_AUTO = ('If you know how the LR was made, choose it. auto tries every A and takes the one by '
              'which x_r comes closest to the LR; the errors of x_r count, so it can be wrong.')


def theme():
    """Plain, with the fonts of the visitor's machine: none is fetched."""
    return gr.themes.Base(primary_hue='teal', neutral_hue='gray', font=FONTS,
                          font_mono=['ui-monospace', 'Consolas', 'monospace'])


class Handlers:
    """What the page's events call.

    Args:
        worker (Worker): Computes.
        storage (Storage): Keeps the files.
        models (dict[str, str]): Of :func:`find_models`.
        limits (Limits): What is allowed.
    """

    def __init__(self, worker, storage, models, limits):
        self.worker, self.storage, self.models, self.limits = worker, storage, models, limits

    def look(self, path):
        """Preview of an upload."""
        try:
            return preview(path, self.limits)
        except Exception:  # the visitor is told nothing of what is inside
            LOG.exception('the page failed')
            return message(BROKEN, 'refused')

    def run(self, *fields):
        """All outputs of the page: message, results' visibility, slider, file, figures, panels."""
        folder = None
        try:
            job = requested(self.models, self.limits, *fields)
            folder = self.storage.new_folder()
            result = self.worker.run(job, folder)
        except (InputError, ValueError) as error:
            return self._refused(' '.join(str(error).split()), folder)
        except Exception:
            LOG.exception('the page failed')
            return self._refused(BROKEN, folder)
        return ('', gr.update(visible=True), (result.before, result.picture),
                gr.update(value=result.picture, interactive=True),
                summary(result.figures, job.strength == 1 and not job.noise_std), result.panels)

    def _refused(self, text, folder):
        if folder is not None:
            self.storage.remove(folder)
        return (message(text, 'refused'), gr.update(visible=False), None,
                gr.update(value=None, interactive=False), '', None)


def build_page(worker, storage, models, limits):
    """The page.

    Args:
        worker (Worker): Computes.
        storage (Storage): Keeps the files.
        models (dict[str, str]): Of :func:`find_models`; without any there is no choice of model.
        limits (Limits): What is allowed.

    Returns:
        gr.Blocks: For ``gr.mount_gradio_app``.
    """
    handlers = Handlers(worker, storage, models, limits)
    with gr.Blocks(title='mmpd: consistent super-resolution', analytics_enabled=False,
                   fill_width=False) as page:
        gr.Markdown(INTRO, elem_id='intro')
        with gr.Row(**ROW):
            with gr.Column(**COLUMN):
                gr.Markdown('## 1. The LR, y')
                lr = gr.File(label='LR picture', elem_id='lr', **UPLOAD)
                lr_preview = gr.HTML(elem_id='lr-preview')
            with gr.Column(**COLUMN):
                gr.Markdown('## 2. A picture of it, x<sub>r</sub>')
                choices = [MODEL, OWN] if models else [OWN]
                source = gr.Radio(choices, value=choices[0], label='x_r', show_label=False,
                                  container=False, elem_id='source')
                model = gr.Dropdown(list(models), value=next(iter(models), None), label='model',
                                    visible=bool(models), elem_id='model')
                with gr.Column(visible=not models, elem_id='own') as own:
                    sr = gr.File(label='SR picture', elem_id='sr', **UPLOAD)
                    sr_preview = gr.HTML(elem_id='sr-preview')
            with gr.Column(**COLUMN):
                gr.Markdown('## 3. How the LR was made, A')
                operator = gr.Dropdown(list(CHOICES), value=USUAL, label='A', info=ABOUT_AUTO,
                                       elem_id='operator')
                with gr.Accordion('noisy LR, range of values', open=False, elem_id='more'):
                    strength = gr.Slider(0, 1, 1, step=0.05, label='strength', info='1: '
                                         'consistent; less trusts a noisy LR less; 0: x_r')
                    noise = gr.Number(0, label='noise of the LR', info='σ in grey levels: '
                                      'gives the strength itself', **LEVEL)
                    with gr.Row():
                        low = gr.Number(0, label='lowest value', **BOUND)
                        high = gr.Number(255, label='highest value', **BOUND)
        button = gr.Button('Make it consistent', variant='primary', elem_id='run')
        answer = gr.HTML(elem_id='message')
        with gr.Column(visible=False, elem_id='results') as results:
            with gr.Row(**ROW):
                with gr.Column(scale=3, **COLUMN):
                    slider = gr.ImageSlider(label='before, x_r  |  after, x̂', type='filepath',
                                            max_height=640, elem_id='slider', **PICTURES)
                with gr.Column(scale=2, **COLUMN):
                    figures = gr.HTML(elem_id='figures')
                    download = gr.DownloadButton('Download the exact PNG', variant='primary',
                                                 interactive=False, elem_id='download')
            gr.Markdown('δ is what was changed, shown around grey. A†y is what the LR says of the '
                        'picture. The last two: how far A of the picture is from the LR, in grey '
                        'levels, before and after.', elem_id='captions')
            gallery = gr.Gallery(show_label=False, columns=4, object_fit='contain',
                                 height='auto', elem_id='panels', **PICTURES)
        gr.HTML(
            f'<p class="pd-limits">PNG, JPEG, BMP, TIFF or WebP of 8 bits per channel, at most '
            f'{limits.upload_mb:g} MB and {limits.megapixels:g} megapixels (an LR for a model: '
            f'{limits.lr_megapixels:g}); a computation may take {limits.seconds:g} s. Files are '
            f'deleted after {limits.keep_minutes:g} minutes.</p>')
        private = dict(api_visibility='private', show_progress='hidden')
        for file, shown in ((lr, lr_preview), (sr, sr_preview)):
            file.change(handlers.look, file, shown, concurrency_limit=2,
                        concurrency_id='look', **private)
        source.change(lambda chosen: (gr.update(visible=chosen == MODEL),
                                      gr.update(visible=chosen == OWN)),
                      source, [model, own], queue=False, **private)
        button.click(
            handlers.run, [lr, sr, source, model, operator, strength, noise, low, high],
            [answer, results, slider, download, figures, gallery], concurrency_limit=1,
            concurrency_id='work', api_visibility='private', show_progress='full',
            show_progress_on=[answer], trigger_mode='once')
    page.queue(max_size=limits.queue, api_open=False)
    return page
