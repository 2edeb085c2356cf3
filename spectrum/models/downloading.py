"""Downloads of `spectrum fetch`: snapshots of the hub and single files, resumable. No other code goes online.

What was downloaded before an interruption is kept, and the same command goes on from there. A file is in its place
whole or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spectrum.core.errors import refuse
from spectrum.models.sources import HubFiles, Item, Source, WebFile, size_text
from spectrum.records.files import write_bytes

AGAIN = "what is here is kept: type the same command again"


@contextmanager
def _online() -> Iterator[None]:
    """Let the hub's library go online, which every other command forbids it."""
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    os.environ.update(dict.fromkeys(before, "0"))
    from huggingface_hub import constants

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_room(item: Item) -> None:
    """Refuse an item that does not fit on the disk that it goes to.

    Raises:
        SpectrumError: if there is less room than its files need.
    """
    needed: dict[Path, float] = {}
    for source in item.sources:
        place = source.target
        while not place.exists():
            place = place.parent
        needed[place] = needed.get(place, 0) + source.size_gb * (not source.here)
    for place, size in needed.items():
        free = shutil.disk_usage(place).free / 1e9
        if size > free:
            refuse(f"{item.name} takes {size_text(size)} and {place} has {size_text(free)} left: make room there")


def download(source: Source) -> str:
    """Download a source, or the rest of it.

    Args:
        source: what to download.

    Returns:
        What was downloaded and where it is, for people.

    Raises:
        SpectrumError: if the server cannot be reached, refuses, or sends something else than it should.
    """
    with _online():
        return _snapshot(source) if isinstance(source, HubFiles) else _file(source)


def _snapshot(source: HubFiles) -> str:
    from huggingface_hub import constants, get_session, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)  # fails at once, without retries
        folder = snapshot_download(
            source.hub,
            revision=source.revision,
            allow_patterns=[*source.allow, *(f"{folder}/*" for folder in source.folders)] or None,
            ignore_patterns=list(source.spare) or None,
        )
    except RevisionNotFoundError:
        return refuse(f"{source.hub} has no commit {source.revision}: the repository has changed, see {source.page}")
    except (GatedRepoError, RepositoryNotFoundError):
        return refuse(
            f"the hub does not hand out {source.hub}: accept its licence at {source.page}, log in with 'hf auth "
            "login', and type the same command again"
        )
    except HfHubHTTPError as error:
        return refuse(f"the hub answered {error.response.status_code} for {source.hub}; {AGAIN}")
    except Exception as error:
        return _unreachable(error, source.hub)
    return f"{source.hub} at commit {Path(folder).name} is in {folder}"


def _file(source: WebFile) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    part = source.target.with_name(source.target.name + ".part")
    made = [folder for folder in part.parents if not folder.exists()]
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not (part.exists() and source.sha256 and _digest(part).startswith(source.sha256)):
            _append(source, part)
    except HfHubHTTPError as error:
        return refuse(f"{source.url} cannot be had: its server answered {error.response.status_code}; {AGAIN}")
    except Exception as error:
        return _unreachable(error, source.url)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
    digest = _digest(part)
    if not digest.startswith(source.sha256):
        part.unlink()
        refuse(
            f"{source.url} sent a file with the SHA-256 {digest}, where {source.sha256} was expected; it was thrown "
            "away: type the same command again, or get the file by hand"
        )
    if source.prompts:
        lines = [line for line in part.read_text(encoding="utf-8").splitlines() if line.strip()]
        write_bytes(source.target, ("\n".join(lines) + "\n").encode())
        part.unlink()
    else:
        part.replace(source.target)
    return f"{source.target.name} is in {source.target.parent}" + (
        "" if source.sha256 else f"; its SHA-256, which nothing here knows, is {digest}"
    )


def _append(source: WebFile, part: Path) -> None:
    """Download what `part` lacks of a file."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    headers = {"Accept-Encoding": "identity"}
    with part.open("ab") as file:
        try:
            http_get(source.url, file, resume_size=file.tell(), headers=headers)
        except HfHubHTTPError as error:
            if error.response.status_code != 416:
                raise
            file.truncate(0)
            http_get(source.url, file, headers=headers)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(error: Exception, what: str) -> str:
    """Refuse with one line for a connection that failed; other errors go on."""
    if not _from_the_network(error):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    return refuse(f"{what} cannot be reached ({reason[:200]}): check the connection; {AGAIN}")


def _from_the_network(error: BaseException) -> bool:
    """Whether an error comes from the connection, and not from the disk: those have a number."""
    module = type(error).__module__.partition(".")[0]
    if module in ("huggingface_hub", "httpx", "httpx2", "httpcore"):
        return True
    return isinstance(error, (ConnectionError, RuntimeError)) or (isinstance(error, OSError) and error.errno is None)
