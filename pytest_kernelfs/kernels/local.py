"""Kernels of the user's own: an image, a built tree, or .deb files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_kernelfs.errors import InfrastructureError, KernelNotFound, UsageError
from pytest_kernelfs.kernels.deb import DebInfo, read_info, unpack_kernel
from pytest_kernelfs.kernels.image import ImageInfo, read_image
from pytest_kernelfs.kernels.kernel import Candidate, LocalFiles
from pytest_kernelfs.kernels.spec import KernelSpec
from pytest_kernelfs.kernels.tree import collect_modules, module_files, tree_image, tree_release
from pytest_kernelfs.kernels.version import KernelVersion

_IMAGE_PACKAGE = re.compile(r"linux-(?:image|binary)-(?:unsigned-)?([0-9].*?)(?:-unsigned)?\Z")
_PART_PACKAGES = ("linux-modules", "linux-modules-extra", "linux-base")


def find_local(spec: KernelSpec) -> Candidate:
    """The kernel at a path: a built tree if it is a folder, else .deb files or an image.

    Raises: KernelNotFound if nothing is there; UsageError if it is no kernel; InfrastructureError if a
    file is damaged or cannot be read.
    """
    with _explained(spec.text):
        return _find_deb(spec) if spec.kind == "deb" else _find_path(spec)


def fill_from_local(files: LocalFiles, release: str, folder: Path) -> Path | None:
    """Fill a cache entry; a modules folder that is to be used in place, or None.

    Raises: InfrastructureError if a file is damaged or has gone.
    """
    for deb in files.debs:
        unpack_kernel(deb, release, folder)
    try:
        return _fill_from_files(files, release, folder)
    except FileNotFoundError as error:
        raise InfrastructureError(f"{error.filename} has gone since it was looked at; run again") from error


@contextmanager
def _explained(text: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfrastructureError(
            f"cannot read {error.filename} (kernel spec {text!r}): {error.strerror}; make it readable"
        ) from error


def _find_path(spec: KernelSpec) -> Candidate:
    (path,) = spec.paths
    if not path.exists():
        raise KernelNotFound(f"there is no file or folder {path} (kernel spec {spec.text!r}); check the path")
    for given in (spec.modules, spec.config):
        if given is not None and not given.exists():
            raise UsageError(f"there is no {given} (kernel spec {spec.text!r}); check the path")
    return _find_tree(spec, path) if path.is_dir() else _find_image(spec, path)


def _find_image(spec: KernelSpec, image: Path) -> Candidate:
    info = read_image(image)
    if spec.modules is None:
        modules = _modules_beside(image, info.release)
    else:
        modules = _modules_in(spec.modules, info.release, spec.text)
    config = spec.config or _config_beside(image, info.release, modules)
    return _candidate(spec, info, f"file {image}", LocalFiles(image, modules, config))


def _find_tree(spec: KernelSpec, tree: Path) -> Candidate:
    image = tree_image(tree, spec.text)
    release = tree_release(tree) or read_image(image).release
    info = ImageInfo(release, KernelVersion.from_release(release))
    config = spec.config or _first_file(tree / ".config")
    if spec.modules is None:
        files = LocalFiles(image, None, config, tree)
    else:
        files = LocalFiles(image, _modules_in(spec.modules, release, spec.text), config)
    return _candidate(spec, info, f"tree {tree}", files)


def _candidate(spec: KernelSpec, info: ImageInfo, source: str, files: LocalFiles) -> Candidate:
    digest = hashlib.sha256(info.release.encode())
    for path in (files.image, files.config):
        digest.update(_file_hash(path).encode() if path else b"-")
    digest.update(_modules_identity(files).encode())
    return Candidate(spec.text, info.version, info.release, source, digest.hexdigest(), local=files)


def _modules_identity(files: LocalFiles) -> str:
    """A text that changes when a module does; reading hundreds of megabytes for it would be too slow."""
    if files.tree is not None:
        return _identity(files.tree, (file for _, file in module_files(files.tree)))
    if files.modules is None:
        return "-"
    return f"{files.modules}\n" + _identity(files.modules, _all_files(files.modules))


def _identity(base: Path, paths: Iterable[Path]) -> str:
    lines = []
    for path in sorted(paths):
        facts = path.stat()
        lines.append(f"{os.path.relpath(path, base)} {facts.st_size} {facts.st_mtime_ns}")
    return "\n".join(lines)


def _all_files(folder: Path) -> Iterable[Path]:
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if path.is_file():
                yield path


def _fill_from_files(files: LocalFiles, release: str, folder: Path) -> Path | None:
    if files.image is not None:
        shutil.copyfile(files.image, folder / "vmlinuz")
    if files.config is not None:
        shutil.copyfile(files.config, folder / "config")
    target = folder / "lib" / "modules" / release
    if files.tree is not None:
        collect_modules(files.tree, target)
    elif files.modules is not None:
        if _is_complete(files.modules, release):
            return files.modules
        shutil.copytree(files.modules, target, ignore=shutil.ignore_patterns("build", "source"))
    return None


def _is_complete(modules: Path, release: str) -> bool:
    named_right = modules.name == release and modules.parent.name == "modules"
    return named_right and (modules / "modules.dep").is_file()


def _modules_in(given: Path, release: str, text: str) -> Path:
    """The modules folder of the release in what the user gave: itself, its parent or an install root."""
    for folder in (given / release, given / f"lib/modules/{release}", given / f"usr/lib/modules/{release}"):
        if folder.is_dir():
            return folder
    if given.is_dir() and ((given / "kernel").is_dir() or any(given.glob("modules.*"))):
        return given
    raise UsageError(
        f"{given} has no modules of the release {release} (kernel spec {text!r}); give the folder "
        f"lib/modules/{release}, or the INSTALL_MOD_PATH that 'make modules_install' wrote to"
    )


def _modules_beside(image: Path, release: str) -> Path | None:
    roots = (image.parent.parent, image.parent, Path("/"))
    places = [root / lib / "modules" / release for root in roots for lib in ("lib", "usr/lib")]
    if image.parent.name == release:
        places.insert(0, image.parent)
    return next((place for place in places if place.is_dir()), None)


def _config_beside(image: Path, release: str, modules: Path | None) -> Path | None:
    places = [image.parent / f"config-{release}"]
    if modules is not None:
        places += [modules / "config", modules / "build" / ".config"]
    return _first_file(*places)


def _first_file(*places: Path) -> Path | None:
    return next((place for place in places if place.is_file()), None)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _find_deb(spec: KernelSpec) -> Candidate:
    """The kernel in one or more packages; its other parts are also looked for beside the image."""
    for path in spec.paths:
        if not path.is_file():
            raise KernelNotFound(f"there is no package {path} (kernel spec {spec.text!r}); check the path")
    found = [(path, read_info(path)) for path in spec.paths]
    image, info, release = _image_package(found, spec)
    debs = [path for path, _ in found]
    if len(debs) == 1:
        debs += _siblings(image, info, release)
    hashes = "\n".join(sorted(_file_hash(path) for path in debs))
    return Candidate(
        spec=spec.text,
        version=KernelVersion.from_package(info.version, release),
        release=release,
        source=f"deb {image.name}",
        checksum=hashlib.sha256(hashes.encode()).hexdigest(),
        local=LocalFiles(debs=tuple(debs)),
    )


def _image_package(found: Sequence[tuple[Path, DebInfo]], spec: KernelSpec) -> tuple[Path, DebInfo, str]:
    # linux-binary-X before linux-image-X, which is empty where both exist.
    for path, info in sorted(found, key=lambda pair: pair[1].package):
        name = _IMAGE_PACKAGE.match(info.package)
        if name and not info.package.endswith("-dbg"):
            return path, info, name[1]
    names = ", ".join(info.package for _, info in found)
    raise UsageError(
        f"the kernel spec {spec.text!r} has no package with a kernel image, only {names}; add the "
        "linux-image (or linux-binary) package, joined with +"
    )


def _siblings(image: Path, info: DebInfo, release: str) -> list[Path]:
    """The packages in the same folder, of the same version, with the other parts of this kernel."""
    wanted = {f"{part}-{release}" for part in (*_PART_PACKAGES, "linux-binary", "linux-binary-unsigned")}
    siblings = {}
    for path in sorted(image.parent.glob(f"linux-*{release}*.deb")):
        if path != image and path.name.partition("_")[0] in wanted:
            sibling = read_info(path)
            if sibling.version == info.version and sibling.package in wanted:
                siblings[sibling.package] = path
    if f"linux-binary-{release}" in siblings:
        siblings.pop(f"linux-binary-unsigned-{release}", None)
    return list(siblings.values())
