"""Adds the stubs of proto/ to the package when it is built: as lwq._proto.v1, because a package named "proto" is another's."""
import pathlib
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto/lwq/v1"


def generate(target):
    """Writes the stubs of PROTO below the directory `target`."""
    import grpc_tools
    from grpc_tools import protoc

    package = pathlib.Path(target) / "lwq/_proto/v1"
    package.mkdir(parents=True, exist_ok=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    with tempfile.TemporaryDirectory() as renamed:
        sources = pathlib.Path(renamed) / "lwq/_proto/v1"
        sources.mkdir(parents=True)
        for path in PROTO.glob("*.proto"):
            (sources / path.name).write_text(path.read_text().replace('import "proto/lwq/v1/', 'import "lwq/_proto/v1/'))
        included = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{renamed}", f"-I{included}", f"--python_out={target}", f"--pyi_out={target}",
                     f"--grpc_python_out={target}", *map(str, sorted(sources.glob("*.proto")))]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc could not make the stubs; its message is above")


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        generate(self.build_lib)


setup(cmdclass={"build_py": BuildWithStubs})
