"""Images of a container engine, over Docker's API (Podman speaks it too): resolved, pulled, built, exported.

An image is exported as `docker save` does, so no container is ever made, let alone started, and none can be left.
Sources: Docker Engine API v1.41 (ImageGet, ImageCreate, ImageBuild), podman-system-service(1).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acon_nb.errors import AconError, InvalidInput, MissingRequirement
from acon_nb.initrd import archive, spool
from acon_nb.initrd.tree import FileTree, Limits
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

# Docker's grammar of references (distribution/reference), near enough to tell a name from nonsense
_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_TIMEOUT_S = 900  # an engine may write a whole image to its own disk before the first byte
_ANSWER_S = 10  # and this long until it says that it is there
_PULLS = ("missing", "always", "never")


def sockets(kind: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Where an engine (`docker` or `podman`) may listen, in the order in which they are tried.

    DOCKER_HOST (for Podman CONTAINER_HOST first), if set, is the only one.
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
class Build:
    """An image to build: the Dockerfile's text, the folder that COPY reads (none: nothing), a tag, build arguments.

    `https_proxy` is given to RUN as the build argument of that name (the guide: behind an HTTP proxy).
    """

    dockerfile: str
    tag: str
    context: Path | None = None
    https_proxy: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_reference(self.tag, "tag")
        if self.context is not None and not self.context.is_dir():
            raise InvalidInput("context", self.context, "is no folder")
        if not re.search(r"(?im)^\s*FROM\s+\S", self.dockerfile):
            raise InvalidInput(
                "dockerfile", self.dockerfile[:80], "has no FROM line", hint="such as FROM alpine:latest"
            )


def check_reference(name: str, what: str = "image") -> None:
    """Errors: `InvalidInput` for what cannot be an image's name."""
    if not _REFERENCE.fullmatch(name):
        raise InvalidInput(
            what, name, "is no name of an image", hint="NAME[:TAG], in small letters, such as alpine:latest"
        )


class Engine:
    """A container engine that answers; a context. `kind` is `docker`, `podman`, or "" for the first that is there.

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
            hint="start it (Debian: apt-get install docker.io), or set DOCKER_HOST; without one, give"
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
        limits: Limits | None = None,
        devices: bool = False,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> FileTree:
        """The tree of an image. Parameters: `pull`: "missing" (as `docker create` does), "always" or "never".

        Errors: `InvalidInput` (no such image), `AconError` (the engine's own words), `TreeError`.
        """
        check_reference(name)
        if pull not in _PULLS:
            raise InvalidInput("pull", pull, "is not known", hint=f"one of {', '.join(_PULLS)}")
        limits = limits or Limits()
        if pull == "always":
            self.pull(name, on_progress=on_progress, cancel=cancel)
        identity = self.find(name)
        if identity is None and pull == "missing":
            self.pull(name, on_progress=on_progress, cancel=cancel)
            identity = self.find(name)
        if identity is None:
            raise InvalidInput("image", name, f"is not in the {self.kind} engine", hint=f"{self.kind} pull {name}")
        with self._said(f"exporting {name}"):
            parts = self._api.get_image(identity["Id"], chunk_size=1 << 20)
            stream = _watched(parts, f"export {name}", int(identity.get("Size") or 0), on_progress, cancel)
            content = spool.keep(stream, spool.stream_limit(limits), name)
        return archive.from_stream(content, name, limits=limits, devices=devices, on_progress=on_progress)

    def find(self, name: str) -> Mapping[str, Any] | None:
        """What the engine knows of an image (`Id`, `Size`, ...), or None."""
        with self._said(f"looking up {name}"):
            try:
                found: Mapping[str, Any] = self._api.inspect_image(name)
                return found
            except self._docker.errors.ImageNotFound:
                return None

    def pull(self, name: str, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> None:
        """Fetch an image from its registry. Errors: `AconError` with the engine's words."""
        check_reference(name)
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(name)
        sizes: dict[str, tuple[int, int]] = {}
        with self._said(
            f"pulling {name}", hint="check the name, the network and the engine's proxy; or pull it elsewhere"
        ):
            for event in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                _events(event, cancel)
                detail = event.get("progressDetail") or {}
                if detail.get("total"):
                    sizes[str(event.get("id"))] = (int(detail.get("current") or 0), int(detail["total"]))
                total = sum(size for _, size in sizes.values())
                done = sum(current for current, _ in sizes.values()) / total if total else None
                on_progress(
                    Progress(f"pull {name}", None if done is None else min(done, 0.999), str(event.get("status", "")))
                )
        on_progress(Progress(f"pull {name}", 1.0))

    def build(self, spec: Build, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> str:
        """Build an image; returns its id. The engine removes the containers of RUN lines, also after a failure.

        Errors: `AconError` with the last lines of the build.
        """
        arguments = dict(spec.arguments)
        if spec.https_proxy:
            arguments["https_proxy"] = spec.https_proxy
        lines: list[str] = []
        source: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if spec.context is None:
                import io

                source["fileobj"] = io.BytesIO(spec.dockerfile.encode())
            else:
                source["path"] = str(spec.context)
                text = _outside_dockerfile(stack, spec.dockerfile)
                source["dockerfile"] = text
            with self._said(f"building {spec.tag}", details=lines):
                events = self._api.build(
                    **source, tag=spec.tag, buildargs=arguments, rm=True, forcerm=True, decode=True
                )
                for event in events:
                    for line in str(event.get("stream") or "").splitlines():
                        lines.append(line)
                        on_progress(Progress(f"build {spec.tag}", None, line))
                    del lines[:-20]
                    _events(event, cancel)
        found = self.find(spec.tag)
        if found is None:
            raise AconError(f"the engine built {spec.tag} and does not have it", details=lines)
        on_progress(Progress(f"build {spec.tag}", 1.0))
        return str(found["Id"])

    def _connect(self, url: str) -> Any:
        """A client if an engine answers there."""
        if url.startswith("unix://") and not Path(url.removeprefix("unix://")).exists():
            return None
        try:
            values = {**os.environ, "DOCKER_HOST": url}
            client = self._docker.APIClient(
                **self._docker.utils.kwargs_from_env(environment=values), version="auto", timeout=_ANSWER_S
            )
            client.ping()
            client.timeout = _TIMEOUT_S
        except (self._docker.errors.DockerException, OSError):
            return None
        return client

    @contextlib.contextmanager
    def _said(self, doing: str, *, hint: str = "", details: list[str] | None = None) -> Iterator[None]:
        """Turn the client library's errors into ours."""
        import requests

        try:
            yield
        except (self._docker.errors.DockerException, requests.RequestException, _EngineSaid) as error:
            words = getattr(error, "explanation", None) or error
            raise AconError(
                f"{doing} failed: {words}", hint=hint or f"engine: {self.url}", details=details or ()
            ) from error


class _EngineSaid(Exception):
    """An error that stands in a stream of events."""


def _events(event: Mapping[str, Any], cancel: CancelToken | None) -> None:
    if event.get("error"):
        raise _EngineSaid(str(event["error"]).strip())
    if cancel is not None:
        cancel.check()


def _outside_dockerfile(stack: contextlib.ExitStack, text: str) -> str:
    """A Dockerfile that is not in the context, as a file that goes away."""
    import tempfile

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


def _watched(
    parts: Iterator[bytes], task: str, size: int, on_progress: OnProgress, cancel: CancelToken | None
) -> Iterator[bytes]:
    done = 0
    for part in parts:
        if cancel is not None:
            cancel.check()
        done += len(part)
        on_progress(Progress(task, min(0.999, done / size) if size else None))
        yield part
    on_progress(Progress(task, 1.0))
