"""How every command starts, and how it ends at a user error."""

import difflib
import io
import itertools
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict

from resnet_jax.errors import (
    WRONG_INPUT,
    InputError,
    missing_in_file,
    mistake_in_file,
    storage_failure,
    wrong_environment,
)
from resnet_jax.runs.arguments import check_field, expand_home, parse_value, update
from resnet_jax.runs.recipe import Recipe
from resnet_jax.runtime import machine

# Now, because libraries that a command loads after this module start threads.
machine.keep_freed_memory()

_OF_ABSL = {
    r"flag (--\w+)=None: .*": r"\1 is missing: give \1=VALUE",
    r"(flag --\w+=.*): invalid literal for int.*": r"\1: must be a whole number",
    r"(flag --\w+=.*): could not convert string to float.*": r"\1: must be a number",
}
"""How errors of absl in parsing flags begin, and what says it to users."""


def run(
    main: Callable[..., int | None],
    wrong_flags: Callable[[str], None] | None = None,
    *,
    arguments: str | None = None,
) -> None:
    """Parses flags and runs `main`; a user error is one line on stderr and exit code 2.

    So is a disk that is full or cannot be written: the user must act there, too.

    Args:
      main: takes the program's name and the positional arguments, where there may be any, and
        returns the exit code.
      wrong_flags: is told of an error in the flags, before the process ends.
      arguments: what the command takes beside flags, in any order with them; None for nothing.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax logs a lot.
    # ml_collections warns of it, and the one line of the error says it.
    says_so = lambda line: "get_config() returned None" in str(line.msg)
    logging.get_absl_logger().addFilter(lambda line: not says_so(line))
    for stream in (sys.stdout, sys.stderr):  # What cannot be printed here stops nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def parse(argv: list[str]) -> list[str]:
        try:
            return _parse_flags(argv, arguments)
        except InputError as error:
            if wrong_flags:
                wrong_flags(str(error))
            _fail(error)

    def start(argv: list[str]) -> int | None:
        try:
            return main(argv) if arguments else main()
        except InputError as error:
            _fail(error)
        except Exception as error:
            if failure := storage_failure(error) or wrong_environment(error):
                _fail(failure)
            raise

    app.run(start, flags_parser=parse)


def _parse_flags(argv: list[str], arguments: str | None) -> list[str]:
    try:
        positional = flags.FLAGS(argv)
        _expand_home()
        for value in flags.FLAGS.flag_values_dict().values():
            hasattr(value, "items")  # A config file that is missing shows only when it is used.
    except SystemExit:  # of --help, with code 1
        sys.exit(0)
    # ml_collections reports misspelt fields and wrong values with these.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        stray = _stray(argv) if arguments is None and isinstance(error, flags.Error) else None
        raise InputError(_unexpected(stray) if stray else _mistake(error, argv)) from error
    except Exception as error:  # of the config's Python
        raise InputError(mistake_in_file(error, _config_file(argv))) from error
    _check_workdirs(flags.FLAGS["workdir"].value if "workdir" in flags.FLAGS else None)
    if arguments is None and len(positional) > 1:
        raise InputError(_unexpected(positional[1]))
    # A section that is given as a whole, ml_collections would replace.
    whole = any(re.match(r"--?config\.[^=]+=\s*{", word) for word in argv)
    if whole and (wrong := _wrong_field(argv)):
        raise InputError(wrong)
    return positional


def _check_workdirs(given: str | list[str] | None) -> None:
    for workdir in given if isinstance(given, list) else [given]:
        if workdir == "":
            raise InputError("workdir='': expected a folder")
        # What writes the checkpoints takes no other path, and would say so after training.
        if workdir and any("\ud800" <= c <= "\udfff" for c in workdir):
            raise InputError(
                f"workdir={workdir!r}: is not in UTF-8, or Python does not read it so here; set "
                "PYTHONUTF8=1, or give a name in ASCII"
            )


def _expand_home() -> None:
    """A shell expands "~" only where a word begins, which in --workdir=~/runs it does not."""
    for flag in map(flags.FLAGS.__getitem__, flags.FLAGS):
        value = flag.value
        if isinstance(value, str):
            flag.value = expand_home(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            flag.value = [expand_home(item) for item in value]


def _unexpected(word: str) -> str:
    config = "config" in flags.FLAGS and re.search(r"\.py(:|$)", word)
    hint = f", here --config={word}" if config else ""
    return f"unexpected argument {word!r}; values are given as --flag=value{hint}"


def _stray(argv: list[str]) -> str | None:
    """The first argument that is neither a flag nor, perhaps, the value of the one before."""
    for before, word in itertools.pairwise(argv):
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            return word
    return None


def _mistake(error: BaseException, argv: list[str]) -> str:
    """What the user should read of an error in parsing flags."""
    cause: BaseException | None = error
    while cause is not None:
        # Raised by a config file; ml_collections raises one of the same type with a traceback.
        if isinstance(cause, InputError) and not str(cause).startswith("Error whilst parsing"):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, flags.DuplicateFlagError):
        return "config: given twice, with fields set beside it; give it once"
    file = error.obj if isinstance(error, AttributeError) and error.name == "get_config" else None
    if isinstance(file, ModuleType):
        return missing_in_file(file, str(file.__file__), "get_config")
    missing = re.search(r"No such file or directory: '(.+?)'", str(error))
    if missing:
        path = Path(missing[1])
        nearest = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        hint = f"; nearest: {path.with_name(nearest[0])}" if nearest else ""
        return f"{path}: no such file{hint}"
    if wrong := _wrong_field(argv):
        return wrong
    if isinstance(error, AttributeError) and isinstance(error.args[0], KeyError):
        return f"no config field {error.args[0].args[0]}"  # in a config file's Python
    if str(error).startswith("flag --config=None") and flags.FLAGS["config"].present:
        return "config: get_config returned None, not a ConfigDict"
    cause = error
    while isinstance(cause, Exception):
        frames = traceback.extract_tb(cause.__traceback__)
        wrong_call = isinstance(cause, TypeError) and str(cause).startswith("get_config()")
        if wrong_call or any(frame.name == "get_config" for frame in frames):
            return mistake_in_file(cause, _config_file(argv))
        cause = cause.__context__
    for pattern, words in _OF_ABSL.items():
        if found := re.fullmatch(pattern, str(error)):
            return found.expand(words)
    return str(error)


def _config_argument(argv: list[str]) -> str:
    """What `--config` gives; "" without it."""
    found = re.search(r"\0--?config[=\0]([^\0]+)", "\0".join(argv))
    return found[1] if found else ""


def _config_file(argv: list[str]) -> str:
    """The path in it, without what follows the colon."""
    return _config_argument(argv).partition(":")[0] or "config"


def _wrong_field(argv: list[str]) -> str | None:
    """What is wrong with the path or the value of a `--config.path=value`, if anything is."""
    argument = _config_argument(argv)
    pattern = r"--?(no)?config\.([^=]+)(?:=(.*))?$"
    given = [found for word in argv if (found := re.match(pattern, word, re.DOTALL))]
    if not (argument and given):
        return None
    try:
        config = flags.FLAGS["config"].parser.parse(argument)
        if not isinstance(config, ConfigDict):
            return None
        for no, path, value in map(re.Match.groups, given):
            check_field(config, path)
            if value is not None and not no:
                update(config, {path: parse_value(value)})
                section, _, key = path.rpartition(".")
                if value == "none" and (config[section] if section else config)[key] is None:
                    Recipe.from_config(config)  # raises if the field needs a value
                    after = f"{argument}{',' if ':' in argument else ':'}{path}=none"
                    return f"--config.{path}=none: give it after the colon: --config={after}"
    except InputError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # The file itself is wrong.
    return None


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _fail(error: object) -> NoReturn:
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(WRONG_INPUT)
