"""Adds the stubs of proto/ to the package when it is built: as lwq._proto.v1, because a package named "proto" is another's."""
import pathlib
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
PACKAGED = HERE / "proto"  # in a source distribution, which has no checkout around it


def protos():
    folder = PACKAGED if PACKAGED.is_dir() else HERE.parents[1] / "proto/lwq/v1"
    found = sorted(folder.glob("*.proto"))
    if not found:
        raise SystemExit(f"there are no .proto files in {folder}: build from a checkout of lwq, or from a source distribution")
    return found


def generate(target):
    """Writes the stubs below the directory `target`, and nothing of an earlier build stays there."""
    import grpc_tools
    from grpc_tools import protoc

    package = pathlib.Path(target) / "lwq/_proto/v1"
    shutil.rmtree(package.parent, ignore_errors=True)
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    with tempfile.TemporaryDirectory() as renamed:
        sources = pathlib.Path(renamed) / "lwq/_proto/v1"
        sources.mkdir(parents=True)
        for path in protos():
            (sources / path.name).write_text(path.read_text().replace('import "proto/lwq/v1/', 'import "lwq/_proto/v1/'))
        included = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{renamed}", f"-I{included}", f"--python_out={target}", f"--pyi_out={target}",
                     f"--grpc_python_out={target}", *map(str, sorted(sources.glob("*.proto")))]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc could not make the stubs; its message is above")


class BuildWithStubs(build_py):
    def run(self):
        shutil.rmtree(pathlib.Path(self.build_lib) / "lwq", ignore_errors=True)  # what was renamed or removed since
        super().run()
        generate(self.build_lib)


class SourcesWithProtos(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        folder = pathlib.Path(base_dir) / "proto"
        folder.mkdir(exist_ok=True)
        for path in protos():
            shutil.copy(path, folder)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SourcesWithProtos})
