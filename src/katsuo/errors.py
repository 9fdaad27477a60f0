"""
Everything that katsuo raises, on one page.

KatsuoError                    what happened, and a hint that names the cure
├── UsageError                 wrong use; the command line exits with 2
│   ├── RecipeError            a setting is unknown, of the wrong type or out of range
│   ├── UnknownNameError       no task type, engine, source or exporter of that name
│   └── MissingPackageError    an optional package is not installed
├── SourceError                a document, a table or a data set cannot be read
├── ModelError                 a model cannot be found, fetched, checked or loaded
├── EngineError                an engine broke while it was answering
├── RunnerError                workers cannot be had, or are lost again and again
├── StoreError                 a run folder cannot be read or written
│   ├── RunExistsError         the folder already holds something else
│   └── RunChangedError        the folder holds a run of another recipe or other documents
├── ExportError                a data set cannot be written
├── TrainError                 a training cannot go on, or its result is not usable
└── TemplateError              a prompt template or a template pack is not usable

KatsuoWarning                  something was damaged, and katsuo went on without it
"""

from __future__ import annotations


class KatsuoError(Exception):
    """
    Say what happened and how to cure it.

    `message` quotes the offending value; `hint` is the one command or setting that helps.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint when an error crosses a process border."""
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[KatsuoError], message: str, hint: str) -> KatsuoError:
    return kind(message, hint=hint)


class UsageError(KatsuoError):
    """Wrong use: a command or a call that cannot mean anything."""

    exit_status = 2


class RecipeError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""


class UnknownNameError(UsageError):
    """No task type, engine, source or exporter has that name."""


class MissingPackageError(UsageError):
    """An optional package is not installed."""


class SourceError(KatsuoError):
    """A document, a table or a data set cannot be read."""


class ModelError(KatsuoError):
    """A model cannot be found, fetched, checked or loaded."""


class EngineError(KatsuoError):
    """An engine broke while it was answering."""


class RunnerError(KatsuoError):
    """Workers cannot be had, or are lost again and again."""


class StoreError(KatsuoError):
    """A run folder cannot be read or written."""


class RunExistsError(StoreError):
    """The output folder already holds something that is not to be overwritten."""


class RunChangedError(StoreError):
    """The output folder holds a run of another recipe or of other documents."""


class ExportError(KatsuoError):
    """A data set cannot be written in the format asked for."""


class TrainError(KatsuoError):
    """A training cannot go on, or its result is not usable."""


class TemplateError(KatsuoError):
    """A prompt template or a template pack is not usable."""


class KatsuoWarning(UserWarning):
    """Say what was damaged, where it lies now, and what to do if anything; the work goes on and is not harmed."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]}\nhint: {self.hint}"
