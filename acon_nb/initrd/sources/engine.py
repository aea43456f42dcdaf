"""Finds, pulls, builds and exports images of a container engine, through Docker's API (which Podman supports too).

Images are exported as by `docker save`, so no container is ever created or started, and none can be left behind.
Sources: Docker Engine API v1.41 (ImageGet, ImageCreate, ImageBuild), podman-system-service(1).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acon_nb import user_file
from acon_nb.archive import spool
from acon_nb.archive.tree import FileTree, ImageLimits
from acon_nb.errors import AconError, InvalidInput, MissingRequirement
from acon_nb.initrd.sources import oci
from acon_nb.initrd.sources.engine_stream import (
    BuildLog,
    EngineMessage,
    PullProgress,
    check_event,
    explain,
    interruptible,
    printable,
    watched,
)
from acon_nb.initrd.sources.oci.manifests import INDEX_TYPES
from acon_nb.initrd.sources.oci.platforms import ImagePlatform
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

# An approximation of Docker's grammar of references (distribution/reference)
_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
_DOCKERFILES = ("Dockerfile", "Containerfile")
_TIMEOUT_S = 900  # an engine may write a whole image to its own disk before the first byte
_PING_S = 10
_PULLS = ("missing", "always", "never")


def sockets(kind: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the sockets of an engine (`docker` or `podman`) in the order in which they are tried.

    If DOCKER_HOST (for Podman, CONTAINER_HOST first) is set, it is the only one.
    """
    values = os.environ if environment is None else environment
    for name in ("CONTAINER_HOST", "DOCKER_HOST") if kind == "podman" else ("DOCKER_HOST",):
        if values.get(name):
            return [values[name]]
    runtime = values.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    if kind == "podman":
        return [f"unix://{runtime}/podman/podman.sock", "unix:///run/podman/podman.sock"]
    return ["unix:///var/run/docker.sock", f"unix://{runtime}/docker.sock"]


@dataclass(frozen=True, kw_only=True)
class ContainerBuild:
    """A container image to build: the text of the Dockerfile, a tag, the folder for COPY, and build arguments.

    Without a `tag` the image has only an id. `network` is that of RUN lines (`host`, `none`, ...; "": the engine's
    default), `pull` looks for a newer base image. `https_proxy` is passed to RUN as a build argument of that name (the
    guide: behind an HTTP proxy).
    """

    dockerfile: str
    tag: str = ""
    context: Path | None = None
    https_proxy: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    pull: bool = False
    platform: str = ""

    @classmethod
    def of_folder(cls, folder: Path, file: Path | None = None, **fields: Any) -> ContainerBuild:
        """Describe the build of a folder by its Dockerfile, or by `file`. Errors: `InvalidInput`."""
        if not folder.is_dir():
            raise InvalidInput("build", folder, "is not a folder", hint="give the folder with the Dockerfile")
        path = file or next((folder / name for name in _DOCKERFILES if (folder / name).is_file()), None)
        if path is None:
            hint = "write one there, or name another with --file"
            raise InvalidInput("build", folder, f"has no {' or '.join(_DOCKERFILES)}", hint=hint)
        if not path.is_file():
            raise InvalidInput("file", path, "is not a file", hint="give a Dockerfile")
        text = user_file.read_text("file", path, hint="give a Dockerfile in UTF-8")
        return cls(dockerfile=text, context=folder, **fields)

    @property
    def name(self) -> str:
        """What it is called in progress and errors."""
        return self.tag or (self.context.resolve().name if self.context else "an image")

    @property
    def base(self) -> str:
        """The image of the first FROM line, "" if there is none."""
        match = _FROM.search(self.dockerfile)
        return match[1] if match else ""

    def __post_init__(self) -> None:
        if self.platform:
            ImagePlatform.parse(self.platform)
        if self.tag:
            check_reference(self.tag, "tag")
        for key in self.arguments:
            if not _ARGUMENT.fullmatch(key):
                raise InvalidInput("build_arg", key, "is not the name of a build argument", hint="give NAME=VALUE")
        if self.context is not None and not self.context.is_dir():
            raise InvalidInput("context", self.context, "is not a folder", hint="give the folder that COPY reads")
        if not self.base:
            raise InvalidInput(
                "dockerfile", self.dockerfile[:80], "has no FROM line", hint="such as FROM alpine:latest"
            )


def check_reference(name: str, what: str = "image") -> None:
    """Check the syntax of an image's name. Errors: `InvalidInput`."""
    if not _REFERENCE.fullmatch(name):
        hint = "NAME[:TAG] in lower case, such as alpine:latest"
        raise InvalidInput(what, name, "is not a valid image name", hint=hint)


def build_arguments(pairs: Sequence[str]) -> dict[str, str]:
    """Parse NAME=VALUE, or NAME, whose value comes from the environment, as for `docker build --build-arg`."""
    arguments = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            hint = "give NAME=VALUE, or set it in the environment"
            raise InvalidInput("build_arg", pair, "has no value", hint=hint)
        arguments[name] = value if equals else os.environ[name]
    return arguments


class Engine:
    """A connection to a container engine, and a context manager.

    `kind` is `docker`, `podman`, or "" for the first one that is running.
    Errors: `MissingRequirement` (no client library, no engine).
    """

    def __init__(self, kind: str = "") -> None:
        self._docker = _library()
        tried = []
        for each in (kind,) if kind else ("docker", "podman"):
            for url in sockets(each):
                tried.append(f"{url.removeprefix('unix://')}")
                client = self._connect(url)
                if client is not None:
                    self.kind, self.url, self._api = each, url, client
                    return
        raise MissingRequirement(
            f"a running {kind or 'Docker or Podman'} engine (tried {', '.join(dict.fromkeys(tried))})",
            "an image by its name",
            hint="start it (Debian: apt-get install docker.io), or set DOCKER_HOST; without an engine, use"
            " docker-archive:FILE, oci:PATH, tar:FILE, dir:FOLDER or busybox",
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def tree(
        self,
        name: str,
        *,
        pull: str = "missing",
        platform: ImagePlatform | None = None,
        limits: ImageLimits | None = None,
        devices: bool = False,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> FileTree:
        """Export an image as a tree.

        Parameters: `pull` is "missing" (pull if the engine does not have it for exactly that platform, like `docker
        create`), "always" or "never". Errors: `InvalidInput` (no such image), `AconError` (with the engine's message),
        `TreeError`.
        """
        check_reference(name)
        if pull not in _PULLS:
            raise InvalidInput("pull", pull, "is not known", hint=f"one of {', '.join(_PULLS)}")
        limits = limits or ImageLimits()
        platforms = platform.runnable() if platform else ()
        identity = None if pull == "always" else self._fitting(name, platforms if pull == "never" else platforms[:1])
        if identity is None and pull != "never":
            self.pull(name, platform=platform, on_progress=on_progress, cancel=cancel)
            identity = self._fitting(name, platforms)
        if identity is None:
            raise self._not_here(name, platform)
        return self._export(identity, name, platform, limits, devices, on_progress, cancel)

    def built_tree(
        self,
        spec: ContainerBuild,
        *,
        limits: ImageLimits | None = None,
        devices: bool = False,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> FileTree:
        """Build an image and export it as a tree; it stays in the engine. Errors: those of `build` and `tree`."""
        record = self._record(self.build(spec, on_progress=on_progress, cancel=cancel), spec)
        limits = limits or ImageLimits()
        platform = ImagePlatform.parse(spec.platform) if spec.platform else None
        return self._export(record, spec.name, platform, limits, devices, on_progress, cancel)

    def _export(
        self,
        record: Mapping[str, Any],
        name: str,
        platform: ImagePlatform | None,
        limits: ImageLimits,
        devices: bool,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> FileTree:
        with self._errors_of(f"exporting {name}"):
            parts = interruptible(self._api, lambda: self._api.get_image(record["Id"], chunk_size=1 << 20), cancel)
            stream = watched(parts, f"export {name}", int(record.get("Size") or 0), on_progress)
            content = spool.keep(stream, spool.stream_limit(limits), name)
        selector = oci.ImageSelector(platform=platform)
        return oci.from_stream(content, name, selector, limits=limits, devices=devices, on_progress=on_progress)

    def _fitting(self, name: str, platforms: Sequence[ImagePlatform]) -> Mapping[str, Any] | None:
        """Return the engine's record of an image if it is for one of the platforms (none: any), or None."""
        record = self.find(name)
        if record is None or not platforms:
            return record
        actual = _platform_of(record)
        return record if actual is None or actual in platforms else None

    def _not_here(self, name: str, platform: ImagePlatform | None) -> InvalidInput:
        record = self.find(name)
        command = f"{self.kind} pull" + (f" --platform {platform}" if platform else "")
        if record is None:
            return InvalidInput("image", name, f"is not in the {self.kind} engine", hint=f"{command} {name}")
        reason = f"is for {_platform_of(record)}, not {platform}, in the {self.kind} engine"
        return InvalidInput("image", name, reason, hint=f"{command} {name}, or another --platform")

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Return the engine's record of an image (`Id`, `Size`, ...), or None."""
        with self._errors_of(f"looking up {name}"):
            try:
                record: Mapping[str, Any] = self._api.inspect_image(name)
                return record
            except self._docker.errors.ImageNotFound:
                return None

    def pull(
        self,
        name: str,
        *,
        platform: ImagePlatform | None = None,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> None:
        """Fetch an image from its registry. Errors: `AconError` with the engine's message."""
        check_reference(name)
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(name)
        if "@" in name:  # NAME:TAG@DIGEST means the digest
            repository = re.sub(r":[^/:]*$", "", repository)
        options = {"platform": str(platform)} if platform else {}
        progress = PullProgress(name)
        with self._errors_of(f"pulling {name}", name):
            events = interruptible(
                self._api,
                lambda: self._api.pull(repository, tag=tag or "latest", stream=True, decode=True, **options),
                cancel,
            )
            for event in events:
                check_event(event)
                on_progress(progress.take(event))
        on_progress(Progress(f"pull {name}", 1.0))

    def build(
        self, spec: ContainerBuild, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> str:
        """Build an image; return its id. The engine removes the containers of RUN lines, even after a failure.

        Errors: `AconError` with the last lines of the step that failed.
        """
        arguments = dict(spec.arguments)
        if spec.https_proxy:
            arguments["https_proxy"] = spec.https_proxy
        log = BuildLog(spec.name)
        options: dict[str, Any] = {"rm": True, "forcerm": True, "decode": True, "buildargs": arguments}
        options |= {"tag": spec.tag or None, "network_mode": spec.network or None, "pull": spec.pull}
        options |= {"platform": spec.platform} if spec.platform else {}
        with contextlib.ExitStack() as stack:
            if spec.context is None:
                options["fileobj"] = io.BytesIO(spec.dockerfile.encode())
            else:
                options["path"] = str(spec.context)
                options["dockerfile"] = _outside_dockerfile(stack, spec.dockerfile)
            with self._errors_of(f"building {spec.name}", spec.base, details=log.lines):
                for event in interruptible(self._api, lambda: self._api.build(**options), cancel):
                    log.take(event, on_progress)
                    check_event(event)
        record = self._record(spec.tag or log.identity, spec, log.lines)
        on_progress(Progress(f"build {spec.name}", 1.0))
        return str(record["Id"])

    def _record(self, identity: str, spec: ContainerBuild, lines: Sequence[str] = ()) -> Mapping[str, Any]:
        record = self.find(identity) if identity else None
        if record is None:
            raise AconError(f"the engine ended the build of {spec.name}, but does not have the image", details=lines)
        return record

    def _connect(self, url: str) -> Any:
        """Return a client if an engine answers at `url`, else None."""
        if url.startswith("unix://") and not Path(url.removeprefix("unix://")).exists():
            return None
        try:
            values = {**os.environ, "DOCKER_HOST": url}
            client = self._docker.APIClient(
                **self._docker.utils.kwargs_from_env(environment=values), version="auto", timeout=_PING_S
            )
            client.ping()
            client.timeout = _TIMEOUT_S
        except (self._docker.errors.DockerException, OSError):
            return None
        return client

    @contextlib.contextmanager
    def _errors_of(self, action: str, name: str = "", *, details: Sequence[str] = ()) -> Iterator[None]:
        """Convert errors of the client library and of the engine into `AconError`, in terms of the image `name`."""
        import requests
        import urllib3

        errors = self._docker.errors
        expected = (errors.DockerException, errors.StreamParseError, requests.RequestException, EngineMessage, OSError)
        try:
            yield
        except (*expected, urllib3.exceptions.HTTPError) as error:
            message = printable(str(getattr(error, "explanation", None) or error))
            reason, hint = explain(message, name) if name else ("", "")
            what = f"{action} failed: {reason}: {message}" if reason else f"{action} failed: {message}"
            raise AconError(what, hint=hint or f"engine: {self.url}", details=tuple(details)) from error


def _platform_of(record: Mapping[str, Any]) -> ImagePlatform | None:
    """Return the platform of an engine's record; None if it stands for several (in the containerd image store)."""
    descriptor = record.get("Descriptor")
    if isinstance(descriptor, Mapping) and descriptor.get("mediaType") in INDEX_TYPES:
        return None
    fields = {"os": record.get("Os"), "architecture": record.get("Architecture"), "variant": record.get("Variant")}
    return ImagePlatform.of_record(fields)


def _outside_dockerfile(stack: contextlib.ExitStack, text: str) -> str:
    """Write a Dockerfile to a temporary file outside the context; return its path."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = Path(folder) / "Dockerfile"
    path.write_text(text)
    return str(path)


def _library() -> Any:
    try:
        import docker
    except ImportError as error:
        raise MissingRequirement("docker-py", "an image by its name", hint="pip install 'acon-nb[docker]'") from error
    return docker
