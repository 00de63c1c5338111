"""The command line ``lightning-meta demo``: a page on which one draws, served on this computer or written out."""

import argparse
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_meta.cli.parser import Parser
from lightning_meta.demo.descriptions import describe
from lightning_meta.demo.static import write_static
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import load_learner, pretrained
from lightning_meta.learner import MetaLearner
from lightning_meta.learner_file import SUFFIX, describe_checkpoint, find_checkpoint


def main(args: list[str]) -> int:
    """Serve the page until Ctrl-C, or write it out; returns the exit status.

    Args:
        args: the arguments of the subcommand.

    Raises:
        MetaLearningError: an extra, a checkpoint or a free port is missing.
    """
    parser = Parser("lightning-meta demo", description="Draw a few symbols, then another one, and see which it is.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this computer)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: %(default)s)")
    help_text = "checkpoints to choose from: files or names of `lightning-meta list checkpoints` (default: all names)"
    parser.add_argument("--ckpt", nargs="+", metavar="NAME_OR_PATH", help=help_text)
    help_text = "whether to show the page in a browser (default: --open)"
    parser.add_argument("--open", action=argparse.BooleanOptionalAction, default=True, help=help_text)
    help_text = "write the page to this folder, which any web server can offer, and serve nothing"
    parser.add_argument("--static", type=Path, metavar="OUT", help=help_text)
    options = parser.parse_args(args)
    files = find_all(options.ckpt or list(pretrained()))
    if options.static is not None:
        write(options.static, files)
        print(f"{options.static / 'index.html'}: offer the folder {options.static} by any web server")
        return 0
    try:
        from lightning_meta.demo import server
    except ModuleNotFoundError as error:
        raise MetaLearningError(
            f'lightning-meta demo needs {error.name}, which is not installed: pip install "lightning-meta[demo]"'
        ) from error
    with listen(options.host, options.port) as listener:
        app = server.create_app(*load(files), options.host)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listener.getsockname()[1]}/"
        print(f"Draw at {address} (Ctrl-C ends)", flush=True)
        try:
            server.serve(app, listener, address, options.open)
        except KeyboardInterrupt:  # uvicorn raises it again after it has closed
            print()
    return 0


def find_all(names: Sequence[str]) -> dict[str, Path]:
    """The files of checkpoints by what the page calls them: a name, or a file's without its ending.

    Raises:
        MetaLearningError: one does not exist, or two would be called the same.
    """
    files: dict[str, Path] = {}
    for name in names:
        path = find_checkpoint(name)
        if path.stem in files:
            raise MetaLearningError(f"--ckpt names two checkpoints {path.stem}: leave one out, or rename its file")
        files[path.stem] = path
    return files


def load(files: Mapping[str, Path]) -> tuple[dict[str, MetaLearner], dict[str, dict[str, Any]]]:
    """The learners, and what their files say of themselves, which those of Lightning do not.

    Raises:
        MetaLearningError: one cannot be loaded.
    """
    learners = {name: load_learner(path) for name, path in files.items()}
    return learners, {name: describe_checkpoint(path) for name, path in files.items() if path.suffix == SUFFIX}


def write(folder: Path, files: Mapping[str, Path]) -> None:
    """Write the page as files.

    Raises:
        MetaLearningError: the folder holds other files, or a checkpoint cannot be used by a browser.
    """
    for path in files.values():
        if path.suffix != SUFFIX:
            raise MetaLearningError(f"--ckpt names {path}, expected a {SUFFIX} file: --static writes for browsers")
    learners, about = load(files)
    write_static(folder, files, [describe(name, learner, about[name]) for name, learner in learners.items()])


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound.

    Raises:
        MetaLearningError: that cannot be.
    """
    if not 0 <= port <= 65535:
        raise MetaLearningError(f"--port is {port}, expected 1 to 65535, or 0 for any that is free")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise MetaLearningError(
            f"--host is {host}, which is not an address of this computer: {error.strerror}"
        ) from error
    except OSError as error:
        raise MetaLearningError(
            f"cannot listen at {host}, port {port} ({error.strerror}): choose another with --port, or --port 0"
        ) from error
